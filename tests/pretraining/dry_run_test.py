"""A dry run says what a run takes and leaves nothing behind."""

import counted_programs
import pytest

from voc2vec_jax import datasets, errors, train
from voc2vec_jax.planning import compiling
from voc2vec_jax.pretraining import dry_run
from voc2vec_jax.runs import configuration


@pytest.mark.slow
def test_a_dry_run_prints_shapes_memory_and_arithmetic_and_writes_nothing(tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    datasets.prepare("synthetic", data_dir=data, clips=30, progress=False)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    arguments = ["--config=tests/helpers/tiny_config.py", f"--config.data_dir={data}", f"--workdir={run}", "--dry_run"]
    assert train.main([*arguments, "--config.batch_seconds=32"]) == errors.EXIT_DONE
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
    printed = capsys.readouterr().out
    for word in ("parameters", "optimizer", "per device", "4 x 8000, 2 x 16000", "TFLOP", "compiled in"):
        assert word in printed, printed


def test_a_dry_run_refuses_what_a_run_refuses(tmp_path):
    with pytest.raises(errors.InputError, match="not divisible|do not divide|divide"):
        train.main(
            ["--config=tests/helpers/tiny_config.py", "--config.fsdp=3", f"--workdir={tmp_path / 'run'}", "--dry_run"]
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--device=v5e:2x4", "--json", "--hlo=step.txt"])
def test_what_belongs_to_a_plan_is_refused_in_a_run(flag, tmp_path):
    with pytest.raises(errors.InputError, match=f"{flag.partition('=')[0]} belongs to a plan.*add --dry_run"):
        train.main(["--config=tests/helpers/tiny_config.py", f"--workdir={tmp_path / 'run'}", flag])
    assert not list(tmp_path.iterdir())


def test_a_dry_run_for_no_machine_names_those_that_there_are(tmp_path):
    with pytest.raises(errors.InputError, match="did you mean h100"):
        train.main(["--config=tests/helpers/tiny_config.py", "--workdir=x", "--dry_run", "--device=h1000:8"])


def test_smaller_batches_keep_the_recipe_as_long_as_they_can():
    config = configuration.load("tests/helpers/tiny_config.py")
    config.groups_per_device, config.group_rows, config.batch_seconds = 8, 4, 64.0
    config.same_length_groups = 8
    sizes = [list(dry_run.smaller(config, 2, share)) for share in (0.7, 0.2, 0.1)]
    assert sizes[0] == [{"groups_per_device": 4}, {"groups_per_device": 2}, {"groups_per_device": 1}]
    assert sizes[1] == [{"groups_per_device": 1}]
    # 0.8 of a group: its rows shrink, in steps that leave the batch's 64 clips whole.
    assert sizes[2][1:] == [{"groups_per_device": 1, "group_rows": 2}, {"groups_per_device": 1, "group_rows": 1}]


def test_the_largest_batch_that_fits_is_compiled_before_it_is_said(monkeypatch):
    config = configuration.load("tests/helpers/tiny_config.py")
    config.groups_per_device, config.group_rows, config.batch_seconds = 8, 4, 64.0
    config.same_length_groups = 8

    def plan(tried, machine):
        # By proportion two groups would need 6 GB, but they need more than the device's 10: one is tried next.
        needed = {8: 24_000_000_000, 2: 11_000_000_000, 1: 5_000_000_000}[tried.groups_per_device]
        compiled = compiling.Compiled(1.0, 0, 0, needed, "")
        return counted_programs.plan(compiled=compiled, copied_bytes=0, parts={}, free_bytes=10_000_000_000)

    monkeypatch.setattr(dry_run, "plan", plan)
    machine = counted_programs.plan().machine
    found = dry_run.fitting(config, machine, plan(config, machine))
    assert found == "the largest found to fit: --config.groups_per_device=1, compiled too: 5.00 GB"
