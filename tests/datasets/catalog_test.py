"""Every source lists what its layout says, in any of its forms, and refuses what is not it in one sentence."""

import csv
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from voc2vec_jax import audio, datasets, errors
from voc2vec_jax.datasets import catalog, preparing, tfds_builders
from voc2vec_jax.datasets import listings as dataset_listings
from voc2vec_jax.datasets.published import donateacry, nonverbal_vocalization, synthetic

TONE = (0.5 * np.sin(np.arange(1600) / 5)).astype(np.float32)
UUID = "549a46d8-9c84-430e-ade8-97eae2bef787"

# Set: files of a small copy in the published layout, with the group and label that each must get; None: left out.
PUBLISHED = {
    "human_voice": {
        "human-voice-dataset-master/data/voices/martin/notes/exports/mono/A#3-2.wav": ("martin", ""),
        "human-voice-dataset-master/data/voices/martin/notes/exports/stereo/A#3-2.WAV": ("martin", ""),
        "human-voice-dataset-master/data/voices/martin/voyels/exports/mono/_-a-c3-2.wav": ("martin", ""),
        "human-voice-dataset-master/data/voices/martin/notes/project/take.wav": None,
    },
    "donateacry": {
        f"x/donateacry_corpus_cleaned_and_updated_data/belly_pain/{UUID}-1430130772174-1.7-m-48-bp.wav": (
            UUID,
            "belly_pain",
        ),
        f"x/donateacry_corpus_cleaned_and_updated_data/tired/{UUID.upper()}-1430130779-1.0-f-26-ti.wav": (
            UUID,
            "tired",
        ),
        "x/donateacry_corpus_cleaned_and_updated_data/hungry/an odd näme #2.wav": ("", "hungry"),
        "x/donateacry_corpus_cleaned_and_updated_data/other/a.wav": None,
    },
    "nonverbal_vocalization": {
        "main/dataset/coughing/OXPA_4_7_0_27_0_0_0.wav": ("OXPA", "coughing"),
        "main/dataset/teeth-chattering/0DYI_0_11_1_45_0_0_0.wav": ("0DYI", "teeth-chattering"),
        "main/dataset/screaming/0DYI_15_1_1_45_0_1_0.wav": ("0DYI", "screaming"),
        "main/dataset/screaming/notes.wav": None,
    },
}


def _wav(path: pathlib.Path, frames: np.ndarray = TONE) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, frames, 16_000, format="WAV")
    return path


def _unpacked(folder: pathlib.Path, name: str) -> pathlib.Path:
    for path in PUBLISHED[name]:
        _wav(folder / path)
    (folder / "README.md").write_text("read me")
    _wav(folder / "__MACOSX" / "._a.wav")
    return folder


def _zipped(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def _list(name: str, manual_dir: pathlib.Path | None, **options) -> dataset_listings.Listing:
    return preparing.list_source(datasets.source(name), manual_dir, **options)


@pytest.mark.parametrize("name", PUBLISHED)
def test_archive_and_folder_in_every_place_list_the_same(tmp_path, name):
    folder = _unpacked(tmp_path / "unpacked", name)
    archive = {"human_voice": "human-voice-dataset-master.zip", "donateacry": "donateacry-corpus-master.zip"}
    archive_name = archive.get(name, "Nonverbal-Vocalization-Dataset-main.zip")
    by_name = _zipped(tmp_path / "b" / archive_name, folder)
    places = [
        folder,
        by_name,
        by_name.parent,
        _zipped(tmp_path / "c" / name / "renamed.zip", folder).parents[1],
        _unpacked(tmp_path / "d" / name, name).parent,
    ]
    listings = [_list(name, place) for place in places]
    for listing in listings:
        found = {recording.path: (recording.group, recording.label) for recording in listing.recordings}
        published = {path.split("/", 1)[1]: about for path, about in PUBLISHED[name].items() if about}
        assert {path.removeprefix("dataset/") for path in published} == {path for path in found}
        assert sorted(found.values()) == sorted(published.values())
        assert [recording.path for recording in listing.recordings] == sorted(found)
        assert len(listing.notes) == 1 and "left out, 1 audio file outside the published layout" in listing.notes[0]
        for recording in listing.recordings:
            assert len(listing.loader.load(recording.locator)) == len(TONE)
    assert len({dataset_listings.digest(listing) for listing in listings}) == 1


def test_the_form_of_openslr_is_a_tgz_without_class_folders(tmp_path):
    folder = _wav(tmp_path / "u" / "NonverbalVocalization" / "OXPA_4_7_0_27_0_0_0.wav").parent
    (folder / "Nonverbal_Vocalization_metadata.json").write_text("{}")
    with tarfile.open(tmp_path / "NonverbalVocalization.tgz", "w:gz") as archive:
        archive.add(folder, "NonverbalVocalization")
    listing = _list("nonverbal_vocalization", tmp_path)
    assert [(r.path, r.group, r.label) for r in listing.recordings] == [("OXPA_4_7_0_27_0_0_0.wav", "OXPA", "coughing")]


def test_a_tree_is_restored_once_in_a_process(tmp_path):
    by_name = _zipped(tmp_path / "human-voice-dataset.zip", _unpacked(tmp_path / "u", "human_voice"))
    loader = _list("human_voice", by_name).loader
    again, once_more = (pickle.loads(pickle.dumps(loader)) for _ in range(2))
    assert again is once_more and len(again.load(_list("human_voice", by_name).recordings[0].locator)) == len(TONE)


def test_the_labels_are_the_published_ones_in_their_order():
    assert donateacry.LABELS == ("belly_pain", "burping", "discomfort", "hungry", "tired")
    assert len(nonverbal_vocalization.LABELS) == 16
    assert nonverbal_vocalization.LABELS[4] == "coughing" and nonverbal_vocalization.LABELS[15] == "screaming"


def test_a_missing_set_says_where_to_get_it_and_where_to_put_it(tmp_path):
    for place in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(dataset_listings.MissingError) as caught:
            _list("human_voice", place)
        text = str(caught.value)
        for part in (
            "https://github.com/vocobox",
            "licence: MIT",
            "exports",
            "human_voice",
            str(place or "--manual_dir"),
        ):
            assert part in text
        assert "\n" not in text


def test_the_wrong_archive_in_the_right_place_is_named(tmp_path):
    other = _unpacked(tmp_path / "other", "donateacry")
    for place in ("a/human_voice/x.zip", "b/human-voice-dataset-master.zip"):
        path = _zipped(tmp_path / place, other)
        with pytest.raises(errors.InputError, match=f"{path} is not Human Voice Dataset, which must hold data/voices"):
            _list("human_voice", tmp_path / place[0])


def test_a_half_downloaded_archive_is_named(tmp_path):
    path = _zipped(tmp_path / "human-voice-dataset.zip", _unpacked(tmp_path / "u", "human_voice"))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(errors.InputError, match=r"\(2000 bytes\) is not a complete zip archive .* download it again"):
        _list("human_voice", path)


@pytest.mark.parametrize("entry", ["../evil.wav", "a/../../evil.wav", "/etc/evil.wav", "..\\evil.wav", "C:\\evil.wav"])
def test_an_archive_with_an_entry_that_climbs_out_is_refused(tmp_path, entry):
    path = _zipped(tmp_path / "human-voice-dataset.zip", _unpacked(tmp_path / "u", "human_voice"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(entry), b"")
    with pytest.raises(errors.InputError, match="is refused: its entry .*evil.wav' leads out of the folder"):
        _list("human_voice", path)


def test_two_versions_are_named(tmp_path):
    _unpacked(tmp_path / "two" / "old", "human_voice")
    _unpacked(tmp_path / "two" / "new", "human_voice")
    with pytest.raises(errors.InputError, match="holds 2 copies of Human Voice Dataset .new/human-.*, old/human-"):
        _list("human_voice", tmp_path / "two")
    for name in ("human-voice-dataset-1.zip", "human-voice-dataset-2.zip"):
        _zipped(tmp_path / name, tmp_path / "two" / "old")
    with pytest.raises(errors.InputError, match="holds 2 archives of Human Voice Dataset"):
        _list("human_voice", tmp_path)


def test_a_damaged_member_is_refused_with_its_reason(tmp_path):
    folder = _unpacked(tmp_path / "u", "human_voice")
    path = _zipped(tmp_path / "human-voice-dataset.zip", folder)
    listing = _list("human_voice", path)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"RIFF") + 500] ^= 255
    path.write_bytes(data)
    outcomes = []
    for recording in _list("human_voice", path).recordings:
        try:
            outcomes.append(len(listing.loader.load(recording.locator)))
        except audio.AudioError as error:
            outcomes.append(error.reason)
    assert outcomes.count(len(TONE)) == 2 and "Bad CRC-32" in next(x for x in outcomes if isinstance(x, str))


def test_a_folder_is_labelled_by_its_class_folders(tmp_path):
    for name in ("laugh/a b.wav", "laugh/deep/é#1.WAV", "cry/a.wav", "root.wav", "cry/.hidden.wav"):
        _wav(tmp_path / name)
    (tmp_path / "cry" / "phone.silk").write_bytes(b"x")
    listing = _list("folder", tmp_path)
    found = {recording.path: recording.label for recording in listing.recordings}
    assert found == {"cry/a.wav": "cry", "laugh/a b.wav": "laugh", "laugh/deep/é#1.WAV": "deep", "root.wav": ""}
    assert listing.labels == ("cry", "deep", "laugh")
    assert listing.unreadable[0]["path"] == "cry/phone.silk" and "convert it" in listing.unreadable[0]["reason"]
    zipped = _list("folder", _zipped(tmp_path / "zip" / "x.zip", tmp_path / "laugh"))
    assert [recording.path for recording in zipped.recordings] == ["a b.wav", "deep/é#1.WAV"]
    assert zipped.labels == ()  # one folder is no classification


def test_links_are_followed_once(tmp_path):
    _wav(tmp_path / "far" / "a.wav")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "loop").symlink_to(tmp_path / "near")
    assert [recording.path for recording in _list("folder", tmp_path / "near").recordings] == ["link/a.wav"]


@pytest.mark.parametrize("delimiter, suffix", [(",", "csv"), ("\t", "tsv")])
def test_a_manifest_lists_paths_labels_and_groups(tmp_path, delimiter, suffix):
    inside, outside = _wav(tmp_path / "m" / "a, b.wav"), _wav(tmp_path / "c.wav")
    manifest = tmp_path / "m" / f"list.{suffix}"
    with manifest.open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file, delimiter=delimiter)
        rows.writerows([["path", "Label", "group"], ["a, b.wav", "x", "ann"], [], ["../c.wav", "y", ""]])
        rows.writerows([[str(inside), "x", "ann"], ["", "y", ""], ["d.wav", "y", "", "more"], [str(outside), "y", ""]])
    listing = _list("folder", manifest)
    assert [(r.path, r.label, r.group) for r in listing.recordings] == [
        ("../c.wav", "y", ""),
        ("a, b.wav", "x", "ann"),
    ]
    assert listing.labels == ("x", "y") and "2 rows repeat an earlier one" in listing.notes[0]
    assert ["no path" in listing.unreadable[0]["reason"], "4 fields" in listing.unreadable[1]["reason"]] == [True, True]
    assert all(len(listing.loader.load(recording.locator)) == len(TONE) for recording in listing.recordings)


def test_a_manifest_of_paths_alone_and_fairseqs_are_read(tmp_path):
    _wav(tmp_path / "audio" / "a.wav")
    (tmp_path / "plain.csv").write_text("path\naudio/a.wav\n")
    (tmp_path / "fairseq.tsv").write_text(f"{tmp_path / 'audio'}\na.wav\t1600\nodd line\n")
    for name, path in (("plain.csv", "audio/a.wav"), ("fairseq.tsv", "a.wav")):
        listing = _list("folder", tmp_path / name)
        assert [(r.path, r.label) for r in listing.recordings] == [(path, "")]
        assert len(listing.loader.load(listing.recordings[0].locator)) == len(TONE)
    assert listing.unreadable == [
        {"path": f"{tmp_path / 'fairseq.tsv'} line 3", "reason": "is not a path, a tab and a number"}
    ]


@pytest.mark.parametrize(
    "text, sentence",
    [
        (b"file,label\na.wav,x\n", "begins with 'file,label': its first line must name the columns"),
        (b"", "lists no recordings, as it is empty"),
        (b"path\n", "lists no recordings"),
        (b"path\n\xff\xfe.wav\n", r"is not text in UTF-8 \(line 2\)"),
        (b"/no/such/folder\na.wav\t1600\n", "names the folder '/no/such/folder', which is not there"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, text, sentence):
    (tmp_path / "m.tsv").write_bytes(text)
    with pytest.raises(errors.InputError, match=sentence):
        _list("folder", tmp_path / "m.tsv")


def test_a_folder_without_audio_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(errors.InputError, match="holds no audio that can be read .1 files"):
        _list("folder", tmp_path)
    for place in (None, tmp_path / "nowhere"):
        with pytest.raises(dataset_listings.MissingError, match="give --manual_dir a folder with audio"):
            _list("folder", place)


def _spectrum(samples: np.ndarray) -> np.ndarray:
    """Mean and deviation over time of the log energies in 24 bands: a crude timbre and rhythm."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(frames)) ** 2
    bands = np.log(np.add.reduceat(power, np.arange(0, 192, 8), axis=1) + 1e-6)
    return np.concatenate([bands.mean(0), bands.std(0)])


def test_synthetic_clips_follow_the_seed_and_their_classes_can_be_told_apart():
    listing = _list("synthetic", None, clips=96, seed=3)
    clips = [listing.loader.load(recording.locator) for recording in listing.recordings]
    again = synthetic.Vocalizer(3).load(listing.recordings[17].locator)
    np.testing.assert_array_equal(again, clips[17])
    assert not np.array_equal(synthetic.Vocalizer(4).load("17"), clips[17])
    seconds = np.array([len(clip) for clip in clips]) / audio.RATE_HZ
    assert 0.5 <= seconds.min() < 1 and 3 < seconds.max() <= 6
    assert max(np.abs(clip).max() for clip in clips) <= 0.9
    labels = np.array([listing.labels.index(recording.label) for recording in listing.recordings])
    groups = np.array([recording.group for recording in listing.recordings])
    assert len(set(groups)) == 12 and np.bincount(labels).tolist() == [16] * 6
    features = np.stack([_spectrum(clip) for clip in clips])
    known = np.isin(groups, sorted(set(groups))[:6])  # the nearest class mean of six speakers tells the other six
    means = np.stack([features[known & (labels == k)].mean(0) for k in range(6)])
    told = np.argmin(((features[:, None] - means) ** 2).sum(-1), axis=1)
    assert (told == labels)[~known].mean() > 0.8


@pytest.mark.parametrize("options", [{"clips": 0}, {"clips": 10**9}, {"seed": -1}])
def test_impossible_synthetic_options_are_refused(options):
    with pytest.raises(errors.InputError, match="clips is 1 to 100000, seed not negative"):
        _list("synthetic", None, **options)


def test_the_catalogue_has_the_paper():
    assert len(catalog.PRETRAINING) == 10 and len(catalog.TASKS) == 6
    assert sum(datasets.CATALOG[name].paper_hours for name in catalog.PRETRAINING) == pytest.approx(125.19, abs=0.01)
    assert all(entry.url and entry.licence and entry.holds for entry in datasets.CATALOG.values())
    assert set(datasets.CATALOG) == {*catalog.PRETRAINING, *catalog.TASKS, *catalog.OTHERS, "folder", "synthetic"}


def test_missing_sets_are_a_table(tmp_path):
    datasets.prepare("synthetic", data_dir=tmp_path, clips=2, workers=1, progress=False)
    table = datasets.missing_table(["synthetic", "vocalsound"], tmp_path).splitlines()
    assert table[2].split()[:2] == ["synthetic", "yes"] and table[3].split()[:2] == ["vocalsound", "no"]
    assert "github.com/YuanGongND/vocalsound" in table[3] and "audio_16k/*.wav" in table[3]


@pytest.mark.parametrize("name, hint", [("donate_a_cry", "donateacry"), ("humanvoice", "human_voice")])
def test_a_misspelt_set_gets_the_nearest_name(name, hint):
    with pytest.raises(errors.InputError, match=f"there is no data set '{name}': did you mean {hint}?"):
        datasets.source(name)


def test_every_source_is_a_tfds_builder():
    assert set(tfds_builders.BUILDERS) == set(datasets.CATALOG)
    for name, builder in tfds_builders.BUILDERS.items():
        assert tfds.builder_cls(name) is builder
        assert name == "synthetic" or datasets.CATALOG[name].url in builder.MANUAL_DOWNLOAD_INSTRUCTIONS


def test_tfds_prepares_the_same_examples_from_a_source(tmp_path):
    manual_dir = _unpacked(tmp_path / "unpacked", "human_voice")
    ours = datasets.prepare("human_voice", data_dir=tmp_path, manual_dir=manual_dir, workers=1, progress=False)
    builder = tfds_builders.BUILDERS["human_voice"](data_dir=tmp_path / "theirs", file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))
    theirs = {example["id"].decode(): example["audio"] for example in builder.as_data_source("train")}
    assert sorted(theirs) == sorted(ours.ids.tolist())
    for name, samples in zip(ours.ids, ours.read(range(len(ours)))):
        np.testing.assert_array_equal(theirs[name], samples)


def test_every_page_is_listed_once_under_its_own_name_and_described_for_users():
    folder = pathlib.Path(catalog.__file__).parent
    pages = sorted(page.stem for page in (folder / "published").glob("[!_]*.py"))
    assert (
        sorted((*catalog.PRETRAINING, *catalog.TASKS, *catalog.OTHERS, *catalog.OWN))
        == pages
        == sorted(catalog.CATALOG)
    )
    assert all(source.name == name for name, source in catalog.CATALOG.items())
    text = (folder / "README.md").read_text("utf-8")
    assert [name for name in pages if f"`{name}`" not in text] == []
