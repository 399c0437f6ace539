"""Files that change under their names: a set made from them is prepared anew, or a sentence says that it is not."""

import json
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
import soundfile

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import file_states, records, renewal, shard_jobs

RATE_HZ = 16_000


def sound(path: pathlib.Path, pitch: int, seconds: float = 0.3) -> None:
    soundfile.write(path, 0.5 * np.sin(np.arange(round(seconds * RATE_HZ)) / pitch), RATE_HZ)


@pytest.fixture
def manifest(tmp_path) -> pathlib.Path:
    """Four recordings, and a list of them and of one that is absent."""
    for k in range(4):
        sound(tmp_path / f"{k}.wav", 9 + k)
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{k}.wav,{'ab'[k % 2]}\n" for k in range(5)))
    return tmp_path / "list.csv"


def prepare(source: pathlib.Path, **options) -> records.PreparedSet:
    data_dir = source.parent / "data"
    return datasets.prepare("folder", data_dir=data_dir, manual_dir=source, workers=1, progress=False, **options)


def clip(prepared: records.PreparedSet, name: str) -> np.ndarray:
    return prepared.read([prepared.ids.tolist().index(name)])[0]


def audio_of(path: pathlib.Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0]


def everything(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".lock" not in path.name}


def as_earlier(prepared: records.PreparedSet) -> None:
    """The set as an earlier version left it."""
    (prepared.folder / file_states.FILE).unlink()
    report = {name: value for name, value in prepared.report.items() if name not in ("sources", "decoders")}
    (prepared.folder / records.REPORT_FILE).write_text(json.dumps(report))


def test_changed_recordings_are_refused_and_only_said_when_a_set_is_prepared_by_hand(manifest):
    before = everything(prepare(manifest).folder)
    sound(manifest.parent / "1.wav", 30)
    with pytest.raises(
        errors.InputError, match=r"before 1 of its 5 recordings changed, such as 1.wav \(9,644 bytes of"
    ):
        prepare(manifest)
    assert everything(manifest.parent / "data") == before


@pytest.mark.parametrize("seconds", [0.3, 0.4])
def test_a_set_made_on_the_fly_is_prepared_anew_when_a_file_changes(manifest, capsys, seconds):
    first = prepare(manifest)
    old = clip(first, "1.wav")
    sound(manifest.parent / "1.wav", 30, seconds)  # of the same size and of another
    again = prepare(manifest, renew=True)
    said = capsys.readouterr().err
    assert "list was prepared before 1 of its 5 recordings changed, such as 1.wav (9,644 bytes of" in said
    assert "it is prepared anew" in said and len(said.splitlines()) == 1
    assert again.fingerprint != first.fingerprint and again.folder == first.folder
    np.testing.assert_array_equal(clip(again, "1.wav"), audio_of(manifest.parent / "1.wav"))
    np.testing.assert_array_equal(clip(again, "2.wav"), audio_of(manifest.parent / "2.wav"))
    assert len(old) == 4800 and [path.name for path in first.folder.parent.glob("1.0.0*")] == ["1.0.0"]
    prepare(manifest, renew=True)
    assert not capsys.readouterr().err


def test_a_recording_that_appears_is_a_change(manifest, capsys):
    assert [bad["path"] for bad in prepare(manifest, renew=True).report["unreadable"]] == ["4.wav"]
    sound(manifest.parent / "4.wav", 13)
    assert "4.wav" in prepare(manifest, renew=True).ids
    assert "1 of its 5 recordings changed, such as 4.wav (absent then, 9,644 bytes" in capsys.readouterr().err


def test_files_that_were_only_touched_leave_the_records_and_what_was_made_of_them(manifest, capsys):
    first = prepare(manifest)
    (first.folder / "units").mkdir()
    (first.folder / "units" / "kept").write_text("made of the records")
    os.utime(manifest.parent / "0.wav", ns=(1, 1))
    again = prepare(manifest, renew=True)
    assert again.fingerprint == first.fingerprint and (first.folder / "units" / "kept").exists()
    assert "list: the records are the same as before" in capsys.readouterr().err
    assert prepare(manifest).fingerprint == first.fingerprint and not capsys.readouterr().err


def test_records_of_files_that_are_gone_are_not_thrown_away(manifest, capsys):
    first = prepare(manifest)
    (manifest.parent / "2.wav").unlink()
    for renew in (True, False):
        assert prepare(manifest, renew=renew).fingerprint == first.fingerprint
        said = "list holds 1 recording whose files are gone, such as 2.wav: it is used as it was prepared"
        assert said in capsys.readouterr().err
    sound(manifest.parent / "1.wav", 30)
    with pytest.raises(errors.InputError, match=r"changed, such as 1.wav .*and 1 are gone, such as 2.wav: bring these"):
        prepare(manifest, renew=True)
    assert "2.wav" in records.open_set(manifest.parent / "data", "list").ids


def test_a_set_of_an_earlier_version_is_prepared_anew_once_and_stays_if_it_is_right(manifest, capsys):
    (manifest.parent / "list.csv").write_text("path\n0.wav\n1.wav\n")
    first = prepare(manifest)
    as_earlier(first)
    before = everything(first.folder)
    assert prepare(manifest).fingerprint == first.fingerprint and everything(first.folder) == before
    assert prepare(manifest, renew=True).fingerprint == first.fingerprint
    said = capsys.readouterr().err
    assert "list was prepared by an earlier version: it is prepared anew" in said and "are the same as before" in said
    assert prepare(manifest, renew=True).report["decoders"] == records.DECODERS and not capsys.readouterr().err
    as_earlier(first)
    (manifest.parent / "1.wav").unlink()
    assert prepare(manifest, renew=True).fingerprint == first.fingerprint
    assert "an earlier version, and 1 of its files are not there: it is used as it was" in capsys.readouterr().err


@pytest.mark.parametrize(("by", "stays"), [(2, True), (3, False)])
def test_records_of_another_decoder_stay_with_the_runs_that_learn_from_them(manifest, monkeypatch, capsys, by, stays):
    rounded = shard_jobs.audio.to_int16
    monkeypatch.setattr(shard_jobs.audio, "to_int16", lambda samples: ((rounded(samples)[0] + by).astype(np.int16), 0))
    (manifest.parent / "list.csv").write_text("path\n0.wav\n1.wav\n")
    first = prepare(manifest)
    monkeypatch.undo()
    as_earlier(first)
    assert (prepare(manifest, renew=True).fingerprint == first.fingerprint) == stays
    assert ("same as before, but for 2 of 32,768" in capsys.readouterr().err) == stays
    os.utime(manifest.parent / "0.wav", ns=(1, 1))  # from here on, only the same bits are the same
    assert prepare(manifest, renew=True).fingerprint != first.fingerprint


def test_mp3_recordings_that_an_earlier_version_read_are_named(tmp_path, capsys):
    (tmp_path / "sounds").mkdir()
    time = np.arange(RATE_HZ) / 9
    for name in ("a.mp3", "b.MP3", "c.wav"):
        soundfile.write(tmp_path / "sounds" / name, 0.5 * np.sin(time), RATE_HZ, format=name[-3:].upper())
    prepared = prepare(tmp_path / "sounds")
    records.open_set(tmp_path / "data", "sounds")
    assert not capsys.readouterr().err
    as_earlier(prepared)
    for warn in (False, True, True):
        records.open_set(tmp_path / "data", "sounds", warn=warn)
        assert warn or not capsys.readouterr().err
    said = capsys.readouterr().err
    assert said.count("holds 2 MP3 recordings that an earlier version read, perhaps only in part: delete it") == 1


def test_an_archive_stands_for_all_that_is_in_it(manifest, capsys):
    archive = manifest.parent / "sounds.zip"

    def pack() -> None:
        with zipfile.ZipFile(archive, "w") as packed:
            for k in range(4):
                packed.write(manifest.parent / f"{k}.wav", f"{k}.wav")

    pack()
    first = prepare(archive)
    sound(manifest.parent / "3.wav", 40)
    pack()
    assert len(clip(first, "3.wav")) == 4800  # every member has the size that it had
    np.testing.assert_array_equal(clip(prepare(archive, renew=True), "3.wav"), audio_of(manifest.parent / "3.wav"))
    assert "before 4 of its 4 recordings changed" in capsys.readouterr().err


def test_stretches_change_with_their_file(manifest, capsys):
    manifest.write_text("path,start,end\n0.wav,0,0.1\n0.wav,0.1,0.3\n1.wav,,\n")
    prepare(manifest)
    sound(manifest.parent / "0.wav", 30)
    again = prepare(manifest, renew=True)
    np.testing.assert_array_equal(clip(again, "0.wav#0.1-0.3"), audio_of(manifest.parent / "0.wav")[1600:])
    assert "before 2 of its 3 recordings changed, such as 0.wav#0-0.1" in capsys.readouterr().err


def test_an_unfinished_set_makes_only_the_shards_of_changed_files_again(manifest, monkeypatch):
    make, made = shard_jobs.make_shard, []

    def interrupted(job: shard_jobs.ShardJob) -> int:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(job.recordings[0].path)
        return make(job)

    monkeypatch.setattr(shard_jobs, "make_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(manifest)
    del made[:]
    sound(manifest.parent / "1.wav", 30)
    monkeypatch.setattr(shard_jobs, "make_shard", lambda job: made.append(job.recordings[0].path) or make(job))
    prepared = prepare(manifest)
    assert made == ["1.wav", "3.wav", "4.wav"]
    np.testing.assert_array_equal(clip(prepared, "1.wav"), audio_of(manifest.parent / "1.wav"))


def test_a_file_that_changes_while_it_is_read_counts_as_changed(manifest, monkeypatch, capsys):
    make = shard_jobs.make_shard

    def late(job: shard_jobs.ShardJob) -> int:
        if job.recordings[0].path == "1.wav":
            sound(manifest.parent / "1.wav", 30)
        return make(job)

    monkeypatch.setattr(shard_jobs, "make_shard", late)
    prepare(manifest, renew=True)
    monkeypatch.setattr(shard_jobs, "make_shard", make)
    prepare(manifest, renew=True)
    assert "1 of its 5 recordings changed, such as 1.wav" in capsys.readouterr().err


def test_a_kill_while_one_set_takes_the_place_of_another_loses_neither(manifest, monkeypatch):
    first = prepare(manifest)
    sound(manifest.parent / "1.wav", 30)
    replace, moved = os.replace, []

    def killed(source, target) -> None:
        if pathlib.Path(target).name == "1.0.0" and moved:
            raise KeyboardInterrupt
        moved.append(pathlib.Path(target).name)
        replace(source, target)

    monkeypatch.setattr(renewal.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(manifest, renew=True)
    monkeypatch.undo()
    assert not first.folder.exists() and "1.0.0.old" in moved
    again = prepare(manifest, renew=True)
    np.testing.assert_array_equal(clip(again, "1.wav"), audio_of(manifest.parent / "1.wav"))
    assert [path.name for path in first.folder.parent.glob("1.0.0*")] == ["1.0.0"]
    (first.folder.parent / "1.0.0.old").mkdir()  # a kill after the new one had its place
    assert prepare(manifest, renew=True).fingerprint == again.fingerprint
    assert not (first.folder.parent / "1.0.0.old").exists()


def test_a_set_that_is_replaced_while_it_is_read_is_not_read_on(manifest):
    first, sent = prepare(manifest), None
    first.read([0])
    sent = pickle.dumps(first)
    sound(manifest.parent / "1.wav", 30)
    again = prepare(manifest, renew=True)
    assert len(again.shard_ends) > 1
    for read in (lambda: first.read([len(first) - 1]), lambda: first.ids, lambda: pickle.loads(sent)):
        with pytest.raises(errors.RunError, match="was prepared anew while it was read: run again"):
            read()
    assert pickle.loads(pickle.dumps(again)).fingerprint == again.fingerprint


def test_a_corrected_list_is_prepared_anew_on_request_and_nothing_must_be_deleted(manifest, capsys):
    before = everything(prepare(manifest).folder)
    (manifest.parent / "list.csv").write_text("path,label\n0.wav,a\n1.wav,c\n")
    with pytest.raises(errors.InputError) as refused:
        prepare(manifest)
    assert "from other recordings (5 then, 2 now): add --renew to prepare it anew, or choose another --name" in str(
        refused.value
    )
    assert "delete" not in str(refused.value) and everything(manifest.parent / "data") == before
    again = prepare(manifest, replace=True)
    assert again.ids.tolist() == ["0.wav", "1.wav"] and again.labels.tolist() == ["a", "c"]
    assert "other recordings (5 then, 2 now): it is prepared anew" in capsys.readouterr().err
    assert [path.name for path in again.folder.parent.iterdir() if path.is_dir()] == [again.folder.name]
    sound(manifest.parent / "1.wav", 30)
    assert prepare(manifest, replace=True).fingerprint != again.fingerprint  # other files, the same list
    same = prepare(manifest, replace=True)
    capsys.readouterr()
    assert prepare(manifest, replace=True).fingerprint == same.fingerprint and not capsys.readouterr().err
