"""metrics.jsonl holds every step once after any kill; what people read is aligned and says what is missing."""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.models import wav2vec2
from voc2vec_jax.pretraining import progress as pretraining_progress
from voc2vec_jax.runs import agreement, durations, files, logs, rows

ROW = {
    "loss": 6.5432,
    "contrastive": 6.4012,
    "diversity": 0.0312,
    "code_perplexity": 123.42,
    "prob_perplexity": 210.1,
    "accuracy": 0.1234,
    "temperature": 1.998,
    "lr": 4.87e-4,
    "grad_norm": 0.521,
    "audio_seconds_per_second": 3012.4,
}


VIEW = wav2vec2.view(wav2vec2.Config())


def written(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps(path):
    return [(row["step"], row.get("split")) for row in written(path)]


def test_rows_are_json_with_nulls_for_what_is_not_finite(tmp_path):
    numbers = {"a": np.float32(0.1), "b": jnp.asarray(2, jnp.int32), "c": np.bool_(True), "d": np.float64(1 / 3)}
    nulls = {"e": float("nan"), "f": jnp.inf, "g": np.float32("nan"), "h": None}
    with logs.Metrics(tmp_path) as metrics:
        metrics.write(1, {**numbers, **nulls, "i": jnp.asarray(0.1, jnp.bfloat16), "j": "text"})
    row = {"step": 1, "a": 0.1, "b": 2, "c": True, "d": 1 / 3, "e": None, "f": None, "g": None, "h": None}
    assert written(tmp_path / "metrics.jsonl") == [{**row, "i": 0.100098, "j": "text"}]


def test_a_float32_survives_its_short_text(tmp_path):
    values = np.random.default_rng(0).normal(size=200).astype(np.float32)
    back = [json.loads(rows.line({"x": value}))["x"] for value in values]
    np.testing.assert_array_equal(np.array(back, np.float32), values)
    assert all(len(repr(value)) < 16 for value in back)


def test_an_array_is_no_metric():
    with pytest.raises(ValueError, match="shape \\(2,\\)"):
        rows.line({"x": np.zeros(2)})


def test_a_resume_drops_later_rows_doubles_and_halves(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = [{"step": 1}, {"step": 2}, {"step": 2, "split": "validation"}, {"step": 2}, {"step": 3}, {"step": 4}]
    text = "\n".join(json.dumps(row) for row in good) + "\n"
    path.write_bytes(text.encode() + b'\n[1]\n7\n{"loss": 2}\n\xff\xfe\n{"step": 3, "lo')
    with logs.Metrics(tmp_path, resume_step=3) as metrics:
        metrics.write(4, {})
    assert steps(path) == [(1, None), (2, None), (2, "validation"), (3, None), (4, None)]


def test_a_resume_from_nothing_starts_the_file_anew(tmp_path):
    with logs.Metrics(tmp_path) as metrics:
        metrics.write(1, ROW)
    with logs.Metrics(tmp_path, resume_step=0) as metrics:
        metrics.write(1, ROW)
    assert steps(tmp_path / "metrics.jsonl") == [(1, None)]


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ([], "has no rows of 9 of the 9 steps before this resume (steps 1 to 9)"),
        ([1, 2, 3, 4], "has no rows of 5 of the 9 steps before this resume (steps 5 to 9)"),
        ([1, 3, 4, 8, 9, 10], "has no rows of 4 of the 9 steps before this resume (steps 2, 5 to 7)"),
        ([2, 4, 6, 8], "has no rows of 5 of the 9 steps before this resume (steps 1, 3, 5 and 2 more stretches)"),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], ""),
    ],
)
def test_a_resume_says_which_rows_were_lost(tmp_path, capsys, left, says):
    path = tmp_path / "metrics.jsonl"
    if left:
        path.write_text("".join(json.dumps({"step": step}) + "\n" for step in left))
    with logs.Metrics(tmp_path, resume_step=9) as metrics:
        metrics.write(10, ROW)
    said = capsys.readouterr().err
    assert said == (
        f"warning: {path} {says}: it was deleted or cut. The model is as it was; curves.png hatches these steps\n"
    ) * bool(says)
    kept = [step for step in left if step < 10]
    history = metrics.recorder.history()
    assert history.lost == 9 - len(kept)
    covered = {step for first, last in history.gaps for step in range(first, last + 1)}
    assert covered == set(range(1, 10)) - set(kept)


def test_an_undamaged_file_is_not_rewritten(tmp_path):
    with logs.Metrics(tmp_path) as metrics:
        metrics.write(1, ROW)
    inode = (tmp_path / "metrics.jsonl").stat().st_ino
    logs.Metrics(tmp_path, resume_step=1).close()
    assert (tmp_path / "metrics.jsonl").stat().st_ino == inode


def test_a_kill_loses_no_row_that_was_written(tmp_path):
    code = """
        import itertools, sys
        from voc2vec_jax.runs import logs
        metrics = logs.Metrics(sys.argv[1], int(sys.argv[2]))
        for step in itertools.count(int(sys.argv[2]) + 1):
            metrics.write(step, {"loss": 1 / step, "text": "x" * 50})
            print(step, flush=True)
    """
    root = pathlib.Path(__file__).parents[2]
    said = 0
    for _ in range(3):
        resume = said // 2  # as if the newest checkpoint were older than the rows
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path), str(resume)]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        for _ in range(50):
            said = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        said = int((process.communicate()[0].split() or [said])[-1])
        found = [row["step"] for row in rows.read(tmp_path / "metrics.jsonl")]
        assert found == list(range(1, len(found) + 1)) and len(found) >= said


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    metrics = logs.Metrics(tmp_path)
    metrics.close()
    metrics._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    with pytest.raises(errors.RunError, match="metrics.jsonl cannot be written: No space left on device"):
        metrics.write(1, ROW)
    metrics._file.close()
    metrics._file = None


def test_a_workdir_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(errors.RunError, match="metrics.jsonl cannot be written: Not a directory"):
        logs.Metrics(tmp_path / "run")


def test_flush_makes_the_rows_durable(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with logs.Metrics(tmp_path) as metrics:
        metrics.write(1, ROW)
        assert synced == []
        metrics.flush()
        assert len(synced) == 1


def test_other_processes_write_and_say_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(agreement, "process_index", lambda: 3)
    with logs.Metrics(tmp_path) as metrics, pretraining_progress.TrainingProgress(10) as progress:
        metrics.write(1, ROW)
        metrics.flush()
        progress.advance(1)
        progress.show(1, ROW)
    logs.say("hello")
    logs.warn("careful")
    assert list(tmp_path.iterdir()) == []
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")


def test_the_line_stands_under_its_headings():
    head = pretraining_progress.header(400_000, VIEW)
    lines = [
        pretraining_progress.line(120, 400_000, ROW, VIEW, 11_520.0),
        pretraining_progress.line(399_999, 400_000, {**ROW, "loss": 12.0, "grad_norm": 1234.5, "lr": 0.0}, VIEW, 45),
        pretraining_progress.line(120, 400_000, {"split": "validation", "loss": 6.1, "contrastive": None}, VIEW),
    ]
    assert " ".join(head.split()) == "step loss contrast div ppl(code,prob) acc temp lr gnorm audio_s/s eta"
    first = "120/400000 6.5432 6.4012 0.0312 123.4,210.1 0.1234 1.998 4.87e-04 0.521 3012 3h12m"
    assert " ".join(lines[0].split()) == first
    assert " ".join(lines[2].split()) == "120/valid 6.1000 - - -,- - - - - - -"
    ends = [
        [i for i, (a, b) in enumerate(zip(text, f"{text[1:]} ")) if a != " " and b == " "] for text in (head, *lines)
    ]
    assert all(end == ends[0] for end in ends)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.6, "1m00s"), (750, "12m30s"), (11_520, "3h12m"), (183_600, "2d03h"), (None, "-"), (np.inf, "-")],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert durations.words(seconds) == text


def test_the_time_to_go_leaves_the_first_step_out(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pretraining_progress.time, "monotonic", lambda: now[0])
    with pretraining_progress.TrainingProgress(50, first_step=10) as progress:
        assert progress.eta_seconds is None
        now[0] += 1000.0  # the first step compiles
        progress.advance(11)
        assert progress.eta_seconds is None
        for step in range(12, 21):
            now[0] += 2.0
            progress.advance(step)
        assert progress.eta_seconds == pytest.approx(60.0)


def test_headings_come_back_and_there_is_no_bar_without_a_terminal(capsys):
    with pretraining_progress.TrainingProgress(60) as progress:
        for step in range(1, 31):
            progress.advance(step)
            progress.show(step, ROW)
    out, err = capsys.readouterr()
    assert sum(line.split()[0] == "step" for line in out.splitlines()) == 2
    assert len(out.splitlines()) == 32 and err == ""


def test_a_remark_stands_before_the_headings_that_come_back(capsys):
    made = []

    def remark():
        made.append(f"remark {len(made)}")
        return made[-1]

    with pretraining_progress.TrainingProgress(60) as progress:
        for step in range(1, 52):
            progress.show(step, ROW, remark)
    lines = capsys.readouterr().out.splitlines()
    places = [i for i, line in enumerate(lines) if line.startswith("remark")]
    assert [lines[i] for i in places] == made == ["remark 0", "remark 1"]
    assert all(lines[i + 1].split()[0] == "step" for i in places) and lines[0].split()[0] == "step"


def test_a_message_does_not_break_the_bar_of_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    with pretraining_progress.TrainingProgress(10) as progress:
        progress.advance(4)
        logs.say("a message")
        progress.show(4, ROW)
    shown = terminal.getvalue()
    assert "10" in shown and "step" in shown
    before = shown[: shown.index("a message")]
    assert before.rstrip(" ").endswith("\r")  # the bar was wiped before the message
    assert "a message\n" in shown


def test_atomic_writing_leaves_the_old_bytes_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "x"
    files.write_atomic(path, b"old")

    def broken(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="No space"):
            files.write_atomic(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("x", b"old")]
