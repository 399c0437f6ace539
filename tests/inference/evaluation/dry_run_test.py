"""A dry run of an evaluation says what its largest batch takes and leaves nothing behind."""

import json

import compilers
import pytest
import tiny_models

from voc2vec_jax import errors, evaluate


@pytest.fixture
def arguments(tmp_path):
    model = tiny_models.write(tmp_path / "model", ("cough", "laugh"))
    tiny_models.recordings(tmp_path / "clips", [0.4, 1.0, 2.0])
    return [f"--model={model}", f"--input={tmp_path / 'clips'}", f"--output={tmp_path / 'out'}", "--dry_run"]


@pytest.mark.parametrize("flags", [(), ("--predict",), ("--pool=none", "--layers=all"), ("--timeline",)])
def test_a_dry_run_prints_the_largest_batch_and_writes_nothing(flags, arguments, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert evaluate.main([*arguments, *flags]) == errors.EXIT_DONE
    printed = capsys.readouterr().out
    for words in ("batch      float32 [", "parameters ", "temporaries", "nothing was written"):
        assert words in printed, printed
    assert sorted(tmp_path.rglob("*")) == before


def test_its_json_says_how_much_a_batch_holds(arguments, capsys):
    assert evaluate.main([*arguments, "--batch_seconds=16", "--json"]) == errors.EXIT_DONE
    found = json.loads(capsys.readouterr().out)
    # On each of eight devices four windows of a little more than 2 s, the largest power of two within 16 s.
    assert found["audio_seconds"] == pytest.approx(8 * 4 * 2, rel=0.05)
    assert found["device"] is None and found["fits"]


@pytest.mark.accelerator
@pytest.mark.parametrize("device", ["v5e:2x2", "h100"])
def test_the_forward_pass_is_compiled_for_a_machine_by_name(device, arguments, capsys):
    compilers.machine(device)
    assert evaluate.main([*arguments, f"--device={device}", "--json"]) == errors.EXIT_DONE
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == device and found["fits"]
    assert found["traffic_bytes"] > 0 and found["audio_seconds_per_second_at_most"] > 0
    assert found["collectives"] == []  # rows need nothing of each other
