"""A dry run says what a run takes and leaves nothing behind."""

import pytest

from voc2vec_jax import datasets, errors, train


def test_a_dry_run_prints_shapes_memory_and_arithmetic_and_writes_nothing(tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    datasets.prepare("synthetic", data_dir=data, clips=30, progress=False)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    arguments = ["--config=tests/helpers/tiny_config.py", f"--config.data_dir={data}", f"--workdir={run}", "--dry_run"]
    assert train.main([*arguments, "--config.batch_seconds=32"]) == errors.EXIT_DONE
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
    printed = capsys.readouterr().out
    for word in ("parameters", "optimizer", "per device", "8000]", "16000]", "TFLOP", "compiled in"):
        assert word in printed, printed


def test_a_dry_run_refuses_what_a_run_refuses(tmp_path):
    with pytest.raises(errors.InputError, match="not divisible|do not divide|divide"):
        train.main(
            ["--config=tests/helpers/tiny_config.py", "--config.fsdp=3", f"--workdir={tmp_path / 'run'}", "--dry_run"]
        )
    assert not list(tmp_path.iterdir())
