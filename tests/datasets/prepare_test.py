"""Preparing gives the same records whatever happens on the way, and tells everything that it left out."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import soxr

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import listings, preparing, records, renewal, shard_jobs, shards
from voc2vec_jax.programs import prepare as prepare_program
from voc2vec_jax.runs import program

ROOT = pathlib.Path(__file__).parents[2]


def _tone(seconds: float, rate_hz: int, gain: float = 0.5) -> np.ndarray:
    return (gain * np.sin(np.arange(round(seconds * rate_hz)) / 9)).astype(np.float32)


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Good and bad recordings: six of the ten can be used."""
    root = tmp_path / "mixed"
    for name in ("cry", "laugh"):
        (root / name).mkdir(parents=True)
    soundfile.write(root / "cry" / "short.wav", _tone(0.3, 16_000), 16_000)
    soundfile.write(root / "cry" / "long.flac", _tone(25.0, 8_000), 8_000)
    soundfile.write(root / "laugh" / "é #8.wav", np.stack([_tone(0.5, 192_000)] * 8, axis=1), 192_000)
    soundfile.write(root / "laugh" / "loud.wav", _tone(1.0, 16_000, gain=2.0), 16_000, subtype="FLOAT")
    soundfile.write(root / "laugh" / "one.wav", _tone(1 / 16_000, 16_000) + 0.25, 16_000)
    soundfile.write(root / "cry" / "nan.wav", np.full(100, np.nan, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(root / "cry" / "one192.wav", _tone(1 / 192_000, 192_000), 192_000)
    (root / "cry" / "cut.wav").write_bytes((root / "cry" / "short.wav").read_bytes()[:3000])
    (root / "laugh" / "empty.wav").write_bytes(b"")
    (root / "laugh" / "text.mp3").write_text("this is not audio " * 50)
    return root


def _prepare(folder: pathlib.Path, data_dir: pathlib.Path, **options) -> records.PreparedSet:
    return datasets.prepare(
        "folder", data_dir=data_dir, manual_dir=folder, **{"workers": 1, "progress": False, **options}
    )


def _shard_bytes(prepared: records.PreparedSet) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in prepared.folder.glob("*array_record*")}


def test_usable_recordings_become_records_and_the_others_are_listed_with_the_reason(folder, tmp_path):
    prepared = _prepare(folder, tmp_path / "data")
    assert prepared.name == "mixed" and prepared.labels.tolist() == ["cry", "laugh"]
    assert dict(zip(prepared.ids.tolist(), prepared.samples.tolist())) == {
        "cry/cut.wav": 1478,
        "cry/long.flac#0": 133_333,
        "cry/long.flac#1": 133_333,
        "cry/long.flac#2": 133_334,
        "cry/short.wav": 4800,
        "laugh/loud.wav": 16_000,
        "laugh/one.wav": 1,
        "laugh/é #8.wav": 8000,
    }
    reasons = {bad["path"]: bad["reason"] for bad in prepared.report["unreadable"]}
    assert sorted(reasons) == ["cry/nan.wav", "cry/one192.wav", "laugh/empty.wav", "laugh/text.mp3"]
    for name, part in (("cry/nan.wav", "NaN"), ("cry/one192.wav", "nothing is left")):
        assert part in reasons[name]
    assert [(said["path"], said["kind"]) for said in prepared.report["remarks"]] == [("cry/cut.wav", "truncated")]


def test_the_segments_of_a_recording_join_to_the_whole(folder, tmp_path):
    prepared = _prepare(folder, tmp_path / "data")
    rows = [k for k, name in enumerate(prepared.ids) if name.startswith("cry/long.flac#")]
    assert prepared.start_sample[rows].tolist() == [0, 133_333, 266_666] and len(set(prepared.recording[rows])) == 1
    decoded, _ = soundfile.read(folder / "cry" / "long.flac", dtype="float32")
    whole = np.rint(soxr.resample(decoded, 8_000, 16_000, quality="HQ") * 32768)
    np.testing.assert_array_equal(np.concatenate(prepared.read(rows)), whole)


def test_the_report_counts_files_hours_and_clipped_samples(folder, tmp_path):
    report = _prepare(folder, tmp_path / "data").report
    loud, _ = soundfile.read(folder / "laugh" / "loud.wav", dtype="float32")
    clipped = int((np.abs(loud) >= 1).sum())
    assert (report["files"], report["records"], report["listed"]) == (6, 8, 10)
    assert report["hours"] == pytest.approx((400_000 + 1478 + 4800 + 16_000 + 1 + 8000) / 16_000 / 3600)
    assert report["mean_seconds"] == pytest.approx(report["hours"] * 3600 / 6)
    assert report["clipped_files"] == {"laugh/loud.wav": report["clipped_samples"]}
    assert abs(report["clipped_samples"] - clipped) <= clipped * 0.01 and clipped > 1000


def test_the_number_of_workers_changes_nothing(folder, tmp_path):
    one, two = _prepare(folder, tmp_path / "1"), _prepare(folder, tmp_path / "2", workers=2)
    assert _shard_bytes(one) == _shard_bytes(two) and one.fingerprint == two.fingerprint
    assert one.report == two.report
    assert not [path for path in two.folder.iterdir() if path.suffix == ".tmp" or path.name.endswith("N.json")]


def test_a_rerun_keeps_a_finished_set_even_without_its_source(folder, tmp_path, monkeypatch):
    first = _prepare(folder, tmp_path / "data")
    monkeypatch.setattr(shard_jobs, "make_shard", None)  # nothing may be made again
    assert _prepare(folder, tmp_path / "data").fingerprint == first.fingerprint
    for gone in (tmp_path / "nowhere", None):
        again = datasets.prepare("folder", data_dir=tmp_path / "data", manual_dir=gone, name="mixed")
        assert again.fingerprint == first.fingerprint


def test_other_recordings_do_not_replace_a_finished_set(folder, tmp_path):
    _prepare(folder, tmp_path / "data")
    soundfile.write(folder / "cry" / "new.wav", _tone(0.1, 16_000), 16_000)
    with pytest.raises(errors.InputError, match=r"prepared from other recordings \(10 then, 11 now"):
        _prepare(folder, tmp_path / "data")


@pytest.mark.parametrize("finished", [0, 1, 3, 7])
def test_an_interrupted_run_goes_on_with_the_shards_that_are_missing(folder, tmp_path, monkeypatch, finished):
    manifest = tmp_path / "mixed.csv"  # of unknown sizes, so that there are eight shards
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest.write_text("".join(f"{path}\n" for path in ["path", *paths]))
    whole = _prepare(manifest, tmp_path / "whole")
    make, made = shard_jobs.make_shard, []

    def interrupted(job: shard_jobs.ShardJob) -> int:
        if len(made) == finished:
            job.path.with_name(f"{job.path.name}.1.tmp").write_bytes(b"half a shard")
            raise KeyboardInterrupt
        made.append(job.path.name)
        return make(job)

    monkeypatch.setattr(shard_jobs, "make_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _prepare(manifest, tmp_path / "data")
    with pytest.raises(errors.InputError, match="set mixed is only half prepared"):
        records.open_set(tmp_path / "data", "mixed")
    partial = records.partial_folder(tmp_path / "data", "mixed")
    kept = {
        name for name in made if not (shards.load(partial / name).unreadable or shards.load(partial / name).remarks)
    }
    monkeypatch.setattr(shard_jobs, "make_shard", lambda job: made.append(job.path.name) or make(job))
    del made[:]
    prepared = _prepare(manifest, tmp_path / "data")
    assert not kept & set(made)  # and shards with unreadable or cut files get another chance
    assert _shard_bytes(prepared) == _shard_bytes(whole) and prepared.fingerprint == whole.fingerprint
    assert not list(prepared.folder.glob("*.tmp"))


def test_half_a_set_of_other_recordings_is_not_continued(folder, tmp_path, capsys):
    whole = _prepare(folder, tmp_path / "whole")
    partial = records.partial_folder(tmp_path / "data", "mixed")
    partial.mkdir(parents=True)
    (partial / preparing.LISTING_FILE).write_text(json.dumps({"listing": "another"}))
    (partial / "mixed-train.array_record-00000-of-00008").write_bytes(b"of another listing")
    assert _shard_bytes(_prepare(folder, tmp_path / "data")) == _shard_bytes(whole)
    assert "mixed: the recordings have changed since the unfinished run: starting over" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_any_moment_a_rerun_ends_with_the_same_shards(tmp_path):
    options = ["synthetic", "--clips=48", "--seed=5"]
    whole = datasets.prepare("synthetic", data_dir=tmp_path / "whole", clips=48, seed=5, workers=1, progress=False)
    command = [sys.executable, "tools/prepare.py", *options, f"--data_dir={tmp_path / 'data'}", "--workers=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    partial = records.partial_folder(tmp_path / "data", "synthetic")
    for shards_before_the_kill in (1, 4):
        run = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while run.poll() is None and len(list(partial.glob("*-of-*.json"))) < shards_before_the_kill:
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    prepared = records.open_set(tmp_path / "data", "synthetic")
    assert _shard_bytes(prepared) == _shard_bytes(whole) and prepared.fingerprint == whole.fingerprint


def test_two_runs_at_once_are_refused(folder, tmp_path):
    with renewal.locked(tmp_path / "data", "mixed", None):
        with pytest.raises(errors.InputError, match="is being prepared by another process"):
            _prepare(folder, tmp_path / "data")


def test_every_recording_goes_to_one_shard_of_about_its_share():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 200 << 20, 300).tolist()
    listed = [listings.Recording(f"{k:04d}", "", source_bytes=size) for k, size in enumerate(sizes)]
    plan = preparing.assign(listed)
    assert [recording for part in plan for recording in part] == listed and all(plan)
    assert max(sum(r.source_bytes for r in part) for part in plan) <= preparing.SHARD_SOURCE_BYTES + max(sizes)
    assert len(preparing.assign(listed[:3])) == 3 and preparing.assign([]) == []
    assert len(preparing.assign([listings.Recording("a", "", source_bytes=0)] * 9)) == 1
    many = [listings.Recording(str(k), "", source_bytes=1 << 40) for k in range(2000)]
    assert len(preparing.assign(many)) == preparing.MOST_SHARDS


def test_a_set_of_unreadable_files_alone_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "list.csv").write_text("path\na.wav\nb.wav\n")
    with pytest.raises(errors.InputError, match="none of the 2 recordings of list can be used, the first is a.wav"):
        _prepare(tmp_path / "list.csv", tmp_path / "data")
    assert not records.partial_folder(tmp_path / "data", "list").exists()


def test_a_count_that_differs_from_the_papers_is_a_warning_with_both_numbers(tmp_path):
    path = tmp_path / "data" / "voices" / "martin" / "voyels" / "exports" / "mono" / "a.wav"
    path.parent.mkdir(parents=True)
    soundfile.write(path, _tone(0.1, 44_100), 44_100)
    prepared = datasets.prepare("human_voice", data_dir=tmp_path / "d", manual_dir=tmp_path, workers=1, progress=False)
    assert prepared.report["warnings"] == [
        "1 recording where the paper has 179 (the paper counts the mono and the stereo export of 75 notes)"
    ]


@pytest.mark.parametrize("name", ["Bad", "a-b", "", "9a", "synthetic"])
def test_an_unusable_name_is_refused(folder, tmp_path, name):
    with pytest.raises(errors.InputError, match="cannot name a prepared set|is the name of another data set"):
        preparing.prepare(
            datasets.source("folder"), data_dir=tmp_path, manual_dir=folder, name=name or "_", reserved={"synthetic"}
        )


def test_an_unwritable_place_is_refused(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(errors.InputError, match="cannot be written .* choose another --data_dir"):
        _prepare(folder, tmp_path / "file")


def test_progress_ends_with_all_recordings(folder, tmp_path, capsys):
    _prepare(folder, tmp_path / "data", progress=True)
    assert capsys.readouterr().err.splitlines()[-1] == "mixed: 10 of 10 recordings"


def _tool(*words: str) -> int:
    return program.run(prepare_program.main, list(words))


def test_the_tool_ends_with_a_table_and_the_unreadable_files(folder, tmp_path, capsys):
    assert _tool("folder", f"--manual_dir={folder}", f"--data_dir={tmp_path / 'd'}", "--workers=1", "--name=mine") == 0
    out = capsys.readouterr().out
    row = next(line.split() for line in out.splitlines() if line.startswith("mine  "))
    assert row[:5] == ["mine", "6", "8", "0.007", "4.48"] and row[-1] == "4"
    assert "mine: left out cry/nan.wav: holds NaN or infinite samples" in out
    assert re.search(r"mine: clipped, [\d,]+ samples? of 1 file\n", out)


def test_the_tool_prepares_the_rest_when_one_set_is_missing(tmp_path, capsys):
    words = ["synthetic", "human_voice", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'd'}", "--clips=2"]
    assert _tool(*words, "--workers=1", "--download=false") == errors.EXIT_INPUT
    out, err = capsys.readouterr()
    assert "synthetic  2" in out and "https://github.com/vocobox/human-voice-dataset" in err


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["humanvoice", "--data_dir=d"], "there is no data set 'humanvoice': did you mean human_voice?"),
        (["human_voice", "--datadir=d"], "there is no flag --datadir; did you mean --data_dir?"),
        (["human_voice"], "--data_dir is missing"),
        (["--data_dir=d"], "DATASET is missing"),
        (["folder", "--data_dir=d", "--workers=-1"], "--workers=-1 is negative"),
        (["folder", "--data_dir=d", "--clips=3"], "--clips is for the set synthetic"),
        (["folder", "synthetic", "--data_dir=d", "--name=x"], "--name=x names one prepared set, 2 are asked for"),
        (["vocalsound", "--data_dir=d"], "vocalsound: VocalSound cannot be prepared, no --manual_dir was given"),
        (["tasks", "--data_dir=d", "--shard=3/2"], "--shard=3/2 is not i/n with i from 1 to n"),
        (["tasks", "--data_dir=d", "--name=x"], "--name=x names one prepared set, 6 are asked for"),
        (["stats", "vivae", "--data_dir=d"], "stats shows every set of --data_dir: drop vivae"),
        (["duplicates", "--data_dir=d"], "d holds no prepared set"),
    ],
)
def test_a_fault_of_the_command_line_is_one_sentence_and_status_2(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert _tool(*words) == errors.EXIT_INPUT
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1 and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_preparing_never_imports_tensorflow(tmp_path):
    code = (
        "import sys; from voc2vec_jax import datasets;"
        f"datasets.prepare('synthetic', data_dir={str(tmp_path)!r}, clips=1, workers=1, progress=False);"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_file_repaired_after_an_interrupted_run_is_taken(folder, tmp_path, monkeypatch):
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path\n{folder / 'cry' / 'cut.wav'}\n{folder / 'cry' / 'short.wav'}\n")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "finish", lambda *arguments, **info: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _prepare(manifest, tmp_path / "data")
    (folder / "cry" / "cut.wav").write_bytes((folder / "cry" / "short.wav").read_bytes())
    prepared = _prepare(manifest, tmp_path / "data")
    assert prepared.report["unreadable"] == [] and prepared.samples.tolist() == [4800, 4800]
