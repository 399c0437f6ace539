"""A task is every labelled recording once, from its start; what cannot be used is named and never replaced."""

import pathlib
import pickle

import numpy as np
import pytest
import soundfile

from voc2vec_jax import audio, datasets, errors
from voc2vec_jax.finetuning import tasks

RNG = np.random.default_rng(0)


def wav(path: pathlib.Path, seconds: float = 0.5) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = RNG.integers(-20000, 20000, round(seconds * 16_000)).astype(np.int16)
    soundfile.write(path, samples, 16_000)
    return samples


@pytest.fixture
def clips(tmp_path) -> dict[str, np.ndarray]:
    """Class folders with six clips, one of which is cut into two segments of 6 s."""
    lengths = {"cry/a.wav": 0.5, "cry/b.wav": 12.0, "cry/c.wav": 3.0, "laugh/a.wav": 9.0, "laugh/d.wav": 1.0}
    return {name: wav(tmp_path / "mine" / name, seconds) for name, seconds in lengths.items()}


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    monkeypatch.setattr("voc2vec_jax.datasets.worker_processes.cores", lambda: 1)


def open_own(tmp_path, data="mine", **options):
    return tasks.open_task("folder", data=tmp_path / data, data_dir=tmp_path / "data", **options)


def test_a_clip_is_the_first_seconds_of_a_recording_whatever_segments_it_was_cut_into(tmp_path, clips):
    task = open_own(tmp_path)
    assert (task.name, task.title, task.labels) == ("mine", "mine", ("cry", "laugh"))
    assert task.ids.tolist() == task.paths.tolist() == list(clips)
    assert task.label.tolist() == [0, 0, 0, 1, 1] and task.group.tolist() == [-1] * 5 and len(task) == 5
    assert task.samples.tolist() == [8000, 112000, 48000, 112000, 16000]
    rows = [4, 1, 1, 3]
    for row, heard in zip(rows, task.read(rows), strict=True):
        np.testing.assert_array_equal(heard, clips[task.ids[row]][:112000])
    assert task.read([]) == []
    assert all((task.audio_root / path).is_file() for path in task.paths)
    assert len(open_own(tmp_path, max_seconds=20.0).read([1])[0]) == 12 * 16000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(task)).read([1])[0], clips["cry/b.wav"][:112000])


def test_a_manifest_gives_labels_and_groups(tmp_path, clips):
    rows = [f"mine/{name},{'x' if 'a.' in name else 'y'},speaker{name[0]}" for name in clips]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group", *rows]))
    task = open_own(tmp_path, "list.csv")
    assert task.labels == ("x", "y") and task.label.tolist() == [0, 1, 1, 0, 1]
    assert [task.groups[k] for k in task.group] == ["speakerc"] * 3 + ["speakerl"] * 2
    assert (task.audio_root / task.paths[0]).is_file()


def test_the_fingerprint_changes_with_what_the_task_holds(tmp_path, clips):
    first = open_own(tmp_path)
    assert open_own(tmp_path).fingerprint == first.fingerprint
    changed = [open_own(tmp_path, max_seconds=5.0)]
    wav(tmp_path / "mine" / "laugh" / "d.wav", 2.0)
    changed += [open_own(tmp_path)]  # prepared anew, in place of the first
    assert changed[-1].name == "mine" and len(changed[-1].read([4])[0]) == 32000
    assert len({first.fingerprint, *(task.fingerprint for task in changed)}) == 3


def test_a_folder_named_like_a_known_set_does_not_pass_for_it(tmp_path, clips):
    (tmp_path / "mine").rename(tmp_path / "synthetic")
    assert open_own(tmp_path, "synthetic").name.startswith("synthetic_")


def test_what_cannot_be_decoded_or_is_too_short_is_named_or_left_out_and_never_replaced(tmp_path, clips, capsys):
    (tmp_path / "mine" / "cry" / "bad.wav").write_bytes(b"")
    (tmp_path / "mine" / "cry" / "phone.silk").write_bytes(b"x")
    wav(tmp_path / "mine" / "laugh" / "blip.wav", 399 / 16_000)
    wav(tmp_path / "mine" / "laugh" / "enough.wav", 400 / 16_000)
    with pytest.raises(errors.InputError) as caught:
        open_own(tmp_path)
    for says in ("3 clips of mine", "cry/bad.wav is empty", "cry/phone.silk its format", "blip.wav has 399 samples"):
        assert says in str(caught.value)
    assert "--config.on_unreadable=drop" in str(caught.value)
    task = open_own(tmp_path, on_unreadable="drop")
    assert task.ids.tolist() == [*clips, "laugh/enough.wav"]
    for name, heard in zip(task.ids, task.read(range(5))):
        np.testing.assert_array_equal(heard, clips[name][:112000])
    assert [entry["path"] for entry in task.dropped] == ["cry/phone.silk", "cry/bad.wav", "laugh/blip.wav"]
    assert "3 clips of mine left out: cry/phone.silk its format" in capsys.readouterr().err
    assert len(open_own(tmp_path, on_unreadable="drop", least_samples=10_000)) == 4
    (tmp_path / "mine" / "cry" / "phone.silk").unlink()
    with pytest.raises(errors.InputError, match="2 clips of mine"):
        open_own(tmp_path)


def test_a_class_that_loses_all_its_clips_is_no_class_of_the_task(tmp_path, clips):
    wav(tmp_path / "mine" / "blip" / "a.wav", 0.01)
    task = open_own(tmp_path, on_unreadable="drop")
    assert task.labels == ("cry", "laugh") and task.label.tolist() == [0, 0, 0, 1, 1]


def test_long_lists_of_faults_are_cut():
    assert tasks.shown([str(k) for k in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2 more"
    assert tasks.shown(["a", "b"]) == "a, b"


def test_faults_of_the_data_are_one_sentence_with_a_remedy(tmp_path, clips):
    wav(tmp_path / "mine" / "loose.wav")
    with pytest.raises(errors.InputError, match=r"1 of 6 clips of mine have no label \(loose.wav\): give them one"):
        open_own(tmp_path)
    wav(tmp_path / "flat" / "a.wav")
    with pytest.raises(errors.InputError, match="flat has no labels, so it is no task: put the clips into a folder"):
        open_own(tmp_path, "flat")
    (tmp_path / "one.csv").write_text("path,label\nmine/cry/a.wav,cry\nmine/cry/c.wav,cry\n")
    with pytest.raises(errors.InputError, match=r"all 2 clips are of one class \(cry\) in one"):
        open_own(tmp_path, "one.csv")
    with pytest.raises(errors.InputError, match="there is no .*nowhere: give --config.data a folder of class folders"):
        open_own(tmp_path, "nowhere")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("donatecry", {}, "there is no data set 'donatecry': did you mean donateacry"),
        ("zzz", {}, "there is no data set 'zzz': known are asvp_esd, "),
        ("folder", {}, "needs --config.data=PATH"),
        ("donateacry", {"data": "x"}, "data x belongs to the data set folder, and not to donateacry"),
        ("donateacry", {}, "Donate-a-Cry, cleaned cannot be prepared, no --manual_dir was given: get it from https"),
        ("donateacry", {"on_unreadable": "skip"}, "on_unreadable 'skip' is none of stop, drop"),
        ("donateacry", {"max_seconds": 0.02}, "max_seconds 0.02 is shorter than one frame of 400 samples"),
    ],
)
def test_faults_of_the_call_are_one_sentence_with_a_remedy(tmp_path, name, options, says):
    with pytest.raises(errors.InputError, match=says):
        tasks.open_task(name, data_dir=tmp_path, **options)


def test_a_named_set_is_prepared_from_its_archive_and_finds_its_files(tmp_path):
    for number, label in enumerate(("hungry", "tired")):
        inside = f"donateacry-corpus-master/donateacry_corpus_cleaned_and_updated_data/{label}"
        wav(tmp_path / "downloads" / inside / f"549a46d8-9c84-430e-ade8-97eae2bef78{number}-1.0-m-48.wav")
    task = tasks.open_task("donateacry", data_dir=tmp_path / "data", manual_dir=tmp_path / "downloads")
    assert task.title == datasets.CATALOG["donateacry"].title and task.labels == ("hungry", "tired")
    assert task.group.tolist() == [0, 1] and (task.audio_root / task.paths[1]).is_file()
    again = tasks.open_task("donateacry", data_dir=tmp_path / "data")  # the archive is no longer needed
    assert again.fingerprint == task.fingerprint and again.audio_root is None


def test_the_tasks_of_the_paper_have_their_titles():
    assert tasks.PAPER_TASKS["asvp_esd_babies"] == "ASVP-ESD (babies)"
    assert tasks.PAPER_TASKS["donateacry"] == "Donate A Cry"
    assert tasks.PAPER_TASKS["nonverbal_vocalization"] == "NonVerbal Vocalization"
    for name in ("asvp_esd", "cnvve", "vivae"):
        assert tasks.PAPER_TASKS[name] == datasets.CATALOG[name].title


def test_the_synthetic_set_needs_nothing(tmp_path):
    datasets.prepare("synthetic", data_dir=tmp_path, workers=1, progress=False, clips=24)
    task = tasks.open_task("synthetic", data_dir=tmp_path)
    assert len(task) == 24 and len(task.labels) == 6 and task.groups[0] == "speaker00" and (task.group >= 0).all()


def test_how_recordings_are_read_is_asked_for_and_part_of_a_set(tmp_path, clips, capsys):
    path = tmp_path / "mine" / "cry" / "a.wav"
    path.write_bytes(path.read_bytes()[:12_044])
    task = open_own(tmp_path)
    assert task.samples[0] == 6000
    assert "1 of the recordings ends early and is used as far as it goes, namely cry/a.wav: " in capsys.readouterr().err
    with pytest.raises(errors.InputError, match=r"cry/a.wav.*is truncated"):
        open_own(tmp_path, how=audio.Reading(on_truncated="refuse"))
    assert len(open_own(tmp_path, how=audio.Reading(on_truncated="refuse"), on_unreadable="drop")) == 4


def test_remedies_that_say_how_recordings_are_read_are_fields_of_the_configuration(tmp_path, clips, capsys):
    mine, tone = tmp_path / "mine" / "cry", 0.5 * np.sin(np.arange(8000, dtype=np.float32))
    soundfile.write(mine / "a.wav", np.stack([tone, 0 * tone], 1), 16_000)
    open_own(tmp_path)
    assert "part of the mean: --config.channel=loudest leaves it out" in capsys.readouterr().err
    for name in ("a.wav", "b.wav"):
        soundfile.write(mine / name, 32768 * tone, 16_000, subtype="FLOAT")
    with pytest.raises(errors.InputError, match=r"a.wav .*: --config\.rescale_float divides them by 32768"):
        open_own(tmp_path)
    for path in (tmp_path / "mine").glob("*/*.wav"):
        soundfile.write(path, 32768 * tone, 16_000, subtype="FLOAT")
    with pytest.raises(errors.InputError, match=r"none of the .*: --config\.rescale_float divides them by 32768"):
        open_own(tmp_path)


def test_a_set_that_is_there_says_how_it_was_read(tmp_path, clips):
    loud = audio.Reading(channel="loudest")
    datasets.prepare("folder", data_dir=tmp_path / "data", manual_dir=tmp_path / "mine", how=loud)
    for how in (audio.DEFAULT, loud):
        assert len(tasks.open_task("mine", data_dir=tmp_path / "data", how=how)) == 5
    with pytest.raises(errors.InputError, match="was prepared with --channel=loudest, and --config.channel=first"):
        tasks.open_task("mine", data_dir=tmp_path / "data", how=audio.Reading(channel="first"))
