"""Where a run stands is told from its folder alone, while the run goes on too."""

import json
import pathlib
import subprocess
import sys
import tracemalloc

import pytest

from voc2vec_jax import errors
from voc2vec_jax.pretraining import status
from voc2vec_jax.runs import program

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = {"family": "wav2vec2", "total_steps": 2000, "sets": ["synthetic", "other"], "data_dir": "data"}


@pytest.mark.parametrize(
    "line",
    [
        "--workdir run --json",
        "--config=small.py --config.ema_decay=0.9 --workdir run --json",
        "--config small.py --workdir run --config.sets a,b --json --resume_with sets",
        "--config.flag --workdir run --config.other --json",
        "--resume_with=sets --workdir run --json --config.model.encoder.depth 3",
    ],
)
def test_what_a_command_says_of_its_configuration_is_passed_over_and_nothing_else(line):
    assert status._without_config(line.split()) == ["--workdir", "run", "--json"]


def checkpoint(folder, name, metadata, whole=True):
    (folder / name).mkdir(parents=True)
    (folder / name / "metadata.json").write_text(json.dumps(metadata))
    if whole:
        (folder / name / "manifest.json").write_text("{}")


def row(step, **fields):
    row = {"step": step, "loss": 4 - step / 1000, "lr": 1e-4, "step_seconds": 2.0, "audio_seconds_per_second": 30.0}
    return json.dumps({**row, **fields}) + "\n"


@pytest.fixture
def run(tmp_path):
    """A run of 1,010 steps with 1,000 saved, a skipped update and a change, cut short within a row."""
    folder = tmp_path / "run"
    folder.mkdir()
    change = {"step": 500, "date": "2026-11-28", "changed": {"peak_lr": [5e-4, 3e-4], "total_steps": [1000, 2000]}}
    (folder / "config.json").write_text(json.dumps({**CONFIG, "history": [change]}))
    lines = [row(step, step_seconds=2.0 if step % 2 else 4.0) for step in range(1, 1011)]
    lines.insert(1000, json.dumps({"step": 1000, "split": "validation", "loss": 3.25}) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines) + '{"step": 1011, "lo')
    best = {"step": 800, "loss": 3.125}
    for step in (900, 1000):
        checkpoint(folder / "checkpoints", str(step), {"step": step, "best": best})
    checkpoint(folder / "checkpoints", "950.corrupt", {})
    checkpoint(folder / "checkpoints", "1010", {"step": 1010, "best": best}, whole=False)
    # Of other clips, before a change of the run
    checkpoint(folder / "best", "800", {"step": 800, "best": {"step": 800, "loss": 1.5}})
    (folder / "bad_clips.csv").write_text("id,step\na,400\nb,400\na,410\n")
    return folder


def test_it_says_step_speed_validations_checkpoints_skipped_updates_and_changes(run):
    found = status.read(run)
    assert (found["step"], found["total_steps"], found["complete"], found["held_by"]) == (1010, 2000, False, None)
    assert found["last_row"]["loss"] == pytest.approx(2.99) and found["last_row_age"] < 60
    assert found["step_seconds"] == pytest.approx(3.0)
    assert found["audio_seconds_per_second"] == pytest.approx(30.0)
    assert found["seconds_to_go"] == pytest.approx(3.0 * 990)
    assert found["best"] == {"step": 800, "loss": 3.125}
    assert found["last_validation"] == {"step": 1000, "split": "validation", "loss": 3.25}
    assert found["checkpoints"] == {"complete": [900, 1000], "half_written": ["1010"], "set_aside": ["950.corrupt"]}
    assert found["best_checkpoints"]["complete"] == [800]
    assert found["bad_updates"] == {"count": 2, "last_step": 410}
    assert [change["step"] for change in found["changes"]] == [500]


def test_the_lines_for_people_hold_all_of_it(run):
    lines = dict(line.split(None, 1) for line in status.text(status.read(run)).splitlines())
    assert "not running; the command that began it goes on from step 1,000" in lines["run"]
    assert lines["step"] == "1,010 of 2,000 (50.5%)"
    assert lines["speed"] == "30 audio-seconds per second, 3 s a step; 49m30s to go"
    assert lines["validation"] == "best loss 3.1250 at step 800; last 3.2500 at step 1,000"
    checkpoints = "complete: 900, 1000; without a manifest: 1010; set aside: 950.corrupt"
    assert lines["checkpoints"] == checkpoints
    assert lines["data"] == "synthetic, other in data"
    assert lines["changed"] == "at step 500: peak_lr from 0.0005 to 0.0003; total_steps from 1000 to 2000"


def test_a_folder_in_which_nothing_has_happened_yet(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    found = status.read(tmp_path)
    assert (found["step"], found["last_row"], found["best"], found["seconds_to_go"]) == (0, None, None, None)
    assert "no training step yet" in status.text(found)
    # Rows without times, as version 0.1.0 writes them, and numbers that are not finite
    (tmp_path / "metrics.jsonl").write_text('{"step": 7, "loss": null, "audio_seconds_per_second": 9.0}\n')
    text = status.text(status.read(tmp_path))
    assert "7 of 2,000" in text and "loss -, learning rate -" in text


def test_a_run_is_complete_when_its_last_step_is_saved(run):
    checkpoint(run / "checkpoints", "2000", {"step": 2000, "best": None})
    found = status.read(run)
    assert found["complete"] and f"{run}: complete" in status.text(found)
    assert "to go" not in status.text(found)


def test_a_live_run_is_told_by_its_lock(run):
    code = """
        import fcntl, sys, time
        file = open(sys.argv[1], "w")
        fcntl.lockf(file, fcntl.LOCK_EX)
        file.write("process 7 on host\\n"), file.flush()
        print("locked", flush=True)
        time.sleep(600)
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    holder = subprocess.Popen([sys.executable, "-c", code, run / ".lock"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        assert status.read(run)["held_by"] == "process 7 on host"
        assert "running, process 7 on host" in status.text(status.read(run))
    finally:
        holder.kill()
        holder.communicate()
    assert status.read(run)["held_by"] is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "run is not there: give the folder"),
        ({}, "run holds no run: give a folder with a config.json"),
        ({"config.json": "{"}, "config.json cannot be read"),
        ({"config.json": '{"dataset": "cnvve"}'}, "holds a run, but none of pre-training"),
    ],
)
def test_what_is_no_run_is_one_sentence(tmp_path, capsys, content, sentence):
    folder = tmp_path / "run"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    assert program.run(status.main, ["--status", f"--workdir={folder}"]) == errors.EXIT_INPUT
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "before",
    [[], ["--config=no/such.py", "--config.sets=a"], ["--config", "no/such.py", "--resume_with=a", "--config.wandb"]],
)
def test_from_the_command_line_it_needs_neither_a_configuration_nor_jax(run, before):
    command = [sys.executable, "-X", "importtime", "-m", "voc2vec_jax.train", *before, "--status", "--json"]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    done = subprocess.run([*command, f"--workdir={run}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["step"] == 1010
    assert "voc2vec_jax.pretraining.status" in done.stderr
    assert not any(line.split("|")[-1].strip() in ("jax", "flax", "grain") for line in done.stderr.splitlines())
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_long_run_is_not_read_whole(run):
    path = run / "metrics.jsonl"
    path.write_bytes(b"x" * 50_000_000 + b"\n" + row(1500).encode())
    tracemalloc.start()
    assert status.read(run)["step"] == 1500
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5_000_000
