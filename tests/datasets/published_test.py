"""Every published layout, oddities included, example by example: labels, groups and what is left out and named."""

import io
import pathlib
import re
import tarfile

import miniatures
import pytest

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import listings as dataset_listings
from voc2vec_jax.datasets import preparing
from voc2vec_jax.datasets.published import audioset_vocalization

TONE, _wav, _unpack, _pack = miniatures.TONE, miniatures.wav, miniatures.unpack, miniatures.pack
WAV = None  # a file of a layout that is a recording; text is that text

NONSPEECH_TRAIN = (
    "\ufeffFilename,File ID,Duration in ms,Class ID,Classname,augmentation  id,Augmentation  type,source\r\n"
    "a b.wav,17,900,2,crying,0,Orignal,youtube\r\n"
    "yawn é#1.wav,18,900,6,yawm,0,Orignal,freesound\r\n"
    "gone.wav,19,900,0,breath,0,Orignal,youtube\r\n"
)
NONSPEECH_TEST = (
    "Filename,File_ID,Durationin ms,Class_id,Classname,Augment Id,Augmentation type,source\n"
    "A.WAV,17,900,2,crying,0,Original,youtube\n"
    "odd.wav,20,900,9,hum,0,Original,youtube\n"
)
RECANVO = (
    "Filename,Participant,Label\r\n200126_2142_00-32-35.80--00-32-36.54c.wav,P01,selftalk\r\n"
    "odd name.WAV,P16,dysregulation-sick\r\nmissing.wav,P02,yes\r\nodd name.WAV,P16,yes"
)
SEGMENTS = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n# YTID, start_seconds, end_seconds, positive_labels\n"
    '--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_,/m/01j3sz"\nYxxxxxxxxx_, 30.000, 40.000, "/m/0463cq4"\n'
    'aaaaaaaaaaa, 5.000, 15.000, "/m/01b_21,/m/01j3sz"\nbbbbbbbbbbb, 5.000, 15.000, "/m/0463cq4"\n'
    'ccccccccccc, 5.000, 15.000, "/m/07p6fty"\nddddddddddd, 0.000, 10.000, "/m/09x0r"\n'
)
TUT = "tut/data/mixture_data"
HASH = "684b88d9cdf4f1f5cc1d6d2e5e6a7b8c"
SKETCHES = "id,filename,stimulus_type,included,draft,training,participant_id,satisfaction,sound_label,sound_label_id\n"

# Set: files in the published layout -> (group, label) that the recording must get, or why it is not one of them.
PUBLISHED = {
    "freesound_babies": {"deep/é 1.WAV": ("", ""), "2.flac": ("", ""), "licence.txt": "text"},
    "nnime": {"dyad01/a.wav": ("", ""), "b #2.wav": ("", "")},
    "vivae": {
        "VIVAE/full_set/S01_achievement_low_01.wav": ("S01", "achievement"),
        "VIVAE/full_set/S11_surprise_peak_12.WAV": ("S11", "surprise"),
        "VIVAE/core_set/S01_achievement_low_01.wav": "left out",
        "VIVAE/full_set/S01_joy_low_01.wav": "left out",
    },
    "vocalsound": {
        "audio_16k/f0003_0_cough.wav": ("f0003", "cough"),
        "audio_16k/m0004_1_throatclearing.wav": ("m0004", "throatclearing"),
        "audio_16k/m0004_1_hum.wav": "left out",
        "class_labels_indices_vs.csv": "index,mid,display_name\n",
        "datafiles/all.json": '{"data": []}',
    },
    "singing_database": {
        "x/monophonic/chinese/fem_01/neg_1.wav": ("chinese/fem_01", ""),
        "x/monophonic/western/piece.wav": ("", ""),
        "x/polyphonic/chinese/a/b/c.wav": ("chinese/a", ""),
        "x/CrossculturalDataSet.xlsx": "sheet",
    },
    "recanvo": {
        "rec/200126_2142_00-32-35.80--00-32-36.54c.wav": ("P01", "selftalk"),
        "rec/odd name.WAV": ("P16", "dysregulation-sick"),
        "rec/stranger.wav": "has no row",
        "rec/dataset_file_directory.csv": RECANVO,
        "rec/Communication_Profiles.xlsx": "sheet",
    },
    "nonspeech7k": {
        "train/a b.wav": ("youtube:17", "crying"),
        "train/yawn é#1.wav": ("freesound:18", "yawn"),
        "test/a.wav": ("youtube:17", "crying"),
        "test/odd.wav": ("youtube:20", ""),
        "test/unlisted.wav": ("", ""),
        "metadata of train set .csv": NONSPEECH_TRAIN,
        "metadata of test set.csv": NONSPEECH_TEST,
        "youtube ID vs link .TXT": "text",
    },
    "vocalsketch": {
        "v/vocal_imitations/included/Dog barking - 0012.wav": ("first:7", "Dog barking"),
        "v/vocal_imitations/excluded/Dog barking - 0013.wav": ("first:8", "Dog barking"),
        "v/vocal_imitations_set2/excluded/Man - woman - 5.wav": ("second:7", "Man - woman"),
        "v/vocal_imitations_set2/loose name.wav": ("", ""),
        "v/sound_recordings/Dog barking.wav": "left out",
        "v/vocal_imitations.csv": SKETCHES
        + "12,Dog barking - 0012.wav,s,1,0,0,7,5,Dog barking,3\n13,Dog barking - 0013.wav,s,0,0,0,8,5,Dog barking,3\n",
        "v/vocal_imitaitons_set2.csv": SKETCHES + "5,Man - woman - 5.wav,s,0,0,0,7,5,Man - woman,4\n",
    },
    "tut_babies": {
        f"{TUT}/devtrain/{HASH}/audio/mixture_devtrain_babycry_000_{HASH}.wav": ("", "babycry"),
        f"{TUT}/devtrain/{HASH}/audio/mixture_devtrain_babycry_001_{HASH}.wav": ("", "no event"),
        f"{TUT}/devtrain/{HASH}/audio/mixture_devtrain_gunshot_000_{HASH}.wav": "left out",
        f"{TUT}/devtest/{HASH}/audio/mixture_devtest_babycry_000_{HASH}.wav": ("", ""),
        "tut/data/source_data/events/babycry/151599.wav": ("151599", "babycry"),
        "tut/data/source_data/events/babycry/151599.yaml": "valid_segments: []\n",
        "tut/data/source_data/bgs/audio/a001_0_30.wav": "left out",
        f"{TUT}/devtrain/{HASH}/meta/event_list_devtrain_babycry.csv": (
            f"mixture_devtrain_babycry_000_{HASH}.wav\t1.5\t3.25\tbabycry\nmixture_devtrain_babycry_001_{HASH}.wav\n"
            f"mixture_devtrain_babycry_002_{HASH}.wav\t1\t2\tbabycry\n"
        ),
    },
    "asvp_esd": {
        "ASVP-ESD-Update/Audio/actor_0/03-02-06-01-02-12-02-01-01-16.wav": ("actor_0", "fearful"),
        "ASVP-ESD-Update/Audio/actor_12/03-01-17-01-02-12-02-01.wav": ("actor_12", "disgust"),
        "ASVP-ESD-Update/Audio/actor_12/03-02-13-02-01-12-02-02-66-77.WAV": ("actor_12", "breath"),
        "ASVP-ESD-Update/Audio/actor_12/03-02-14-02.wav": "code 14",
        "ASVP-ESD-Update/Audio/actor_12/noise.wav": "no emotion code",
        "ASVP-ESD-Update/Bonus/actor_50/03-02-04-01.wav": "left out",
    },
    "asvp_esd_babies": {
        "ASVP-ESD-Update/Bonus/actor_50/03-02-04-01-02-50-04-01-01.wav": ("actor_50", "sad"),
        "ASVP-ESD-Update/Bonus/actor_200/03-02-17-01.wav": ("actor_200", "disgust"),
        "ASVP-ESD-Update/Bonus/actor_200/03-02-09-01.wav": "excited",
        "ASVP-ESD-Update/Audio/actor_0/03-02-06-01.wav": "left out",
    },
    "cnvve": {
        "clean/psst/psst_12_3.wav": ("12", "psst"),
        "clean/Ahem/ahem_P03_take 2.wav": ("p03", "ahem"),
        "clean/hush/odd.wav": ("", "hush"),
        "clean/noise/a.wav": "left out",
    },
    "audioset_vocalization": {
        "balanced_train_segments.csv": SEGMENTS,
        "eval_segments.csv": '# x\neeeeeeeeeee, 1.500, 11.500, "/m/01j3sz"\neeeeeeeeeee, 50.000, 60.000, "/m/01b_21"\n',
        "clips/Y--4gqARaEJE_0.000_10.000.wav": ("--4gqARaEJE", "Laughter"),
        "clips/deep/Yxxxxxxxxx_.wav": ("Yxxxxxxxxx_", "Crying, sobbing"),
        "clips/aaaaaaaaaaa_5000_15000.flac": ("aaaaaaaaaaa", "Laughter"),
        "clips/eeeeeeeeeee_50.000.wav": ("eeeeeeeeeee", "Cough"),
        "clips/eeeeeeeeeee_20.000.wav": "no segment starts there",
        "clips/eeeeeeeeeee.flac": "one of two segments, nobody knows which",
        "clips/ccccccccccc.wav": "borderline",
        "clips/ddddddddddd.wav": "speech",
        "clips/readme first.wav": "no id",
    },
}
NAMES = {  # of the archive as it is downloaded, where the set is one archive
    "freesound_babies": "FreeSound_babies.zip",
    "nnime": "NNIME.tgz",
    "vivae": "VIVAE.zip",
    "vocalsound": "vs_release_16k.zip",
    "singing_database": "SingingVoiceDataset.zip",
    "recanvo": "ReCANVo.zip",
    "nonspeech7k": "nonspeech7k/all.zip",
    "vocalsketch": "VocalSketchDataSet-1.1.2.zip",
    "tut_babies": "tut_babies/TUT-rare-sound-events-2017-development.zip",
    "asvp_esd": "ASVP-ESD-Update.zip",
    "asvp_esd_babies": "ASVP-ESD-Update.zip",
    "cnvve": "CNVVE.tar.gz",
    "audioset_vocalization": "audioset.tar",
}
NOTES = {  # what else must be said
    "nonspeech7k": [
        "train: 1 row of the csv without the file: gone.wav",
        "test: clips of unknown classes have no label: hum",
        "test: 1 file without a row in the csv: test/unlisted.wav",
    ],
    "recanvo": [
        "left out, 1 row of a file named before, with other fields: odd name.WAV",
        "1 row of the csv without the file: missing.wav",
        "1 file without a row in the csv: stranger.wav",
    ],
    "vocalsketch": ["vocal_imitations_set2: 1 file without a row in the csv: vocal_imitations_set2/loose name.wav"],
    "tut_babies": [
        f"1 mixtures of the event lists are not there: mixture_devtrain_babycry_002_{HASH}.wav",
        f"1 mixtures are in no event list and have no label: mixture_devtest_babycry_000_{HASH}.wav",
    ],
    "audioset_vocalization": [
        "6 of the 8 segments of the lists carry a chosen label",
        "2 of these segments have no clip: bbbbbbbbbbb, eeeeeeeeeee",
        "5 audio files hold no chosen segment and were left out",
    ],
}


def _contents(name: str) -> dict[str, bytes]:
    texts = (".csv", ".txt", ".TXT", ".xlsx", ".yaml", ".json")
    return {path: about.encode() if path.endswith(texts) else _wav(path) for path, about in PUBLISHED[name].items()}


def _list(name: str, manual_dir: pathlib.Path | None, **options) -> dataset_listings.Listing:
    return preparing.list_source(datasets.source(name), manual_dir, **options)


def test_every_published_set_has_its_layout_here():
    elsewhere = {"human_voice", "donateacry", "nonverbal_vocalization", "folder", "synthetic"}
    assert set(PUBLISHED) == set(NAMES) == set(datasets.CATALOG) - elsewhere


@pytest.mark.parametrize("name", PUBLISHED)
def test_archive_and_folder_give_every_example_its_group_and_label(tmp_path, name):
    contents = _contents(name)
    archive = _pack(tmp_path / "downloads" / NAMES[name], contents)
    places = [tmp_path / "downloads", archive, _unpack(tmp_path / "unpacked" / name, contents).parent]
    wanted = sorted(about for about in PUBLISHED[name].values() if isinstance(about, tuple))
    odd = [(path, about) for path, about in PUBLISHED[name].items() if isinstance(about, str)]
    listings = [_list(name, place) for place in places]
    for listing in listings:
        found = {recording.path: (recording.group, recording.label) for recording in listing.recordings}
        assert sorted(found.values()) == wanted
        for path, about in found.items():
            [published] = [value for key, value in PUBLISHED[name].items() if key.endswith(path)]
            assert about == published
        assert set(listing.labels) >= {label for _, label in found.values()} - {""}
        for bad in listing.unreadable:
            assert any(path.endswith(bad["path"]) and about in bad["reason"] for path, about in odd)
        left_out = sum(about == "left out" for _, about in odd)
        told = [
            *NOTES.get(name, ()),
            *[f"left out, {errors.counted(left_out, 'audio file')} outside the published layout"] * bool(left_out),
        ]
        assert len(listing.notes) == len(told)
        assert all(note.startswith(expected) for note, expected in zip(listing.notes, told))
        for recording in listing.recordings:
            assert abs(len(listing.loader.load(recording.locator)) - len(TONE) * 16_000 / 44_100) < 2
    assert len({dataset_listings.digest(listing) for listing in listings}) == 1


@pytest.mark.parametrize(
    "name, classes", [("asvp_esd", 13), ("asvp_esd_babies", 7), ("cnvve", 6), ("vivae", 6), ("nonspeech7k", 7)]
)
def test_a_set_has_the_papers_number_of_classes(tmp_path, name, classes):
    listing = _list(name, _unpack(tmp_path / name, _contents(name)))
    assert len(set(listing.labels)) == classes == (datasets.CATALOG[name].paper_classes or classes)
    assert name != "asvp_esd" or (listing.labels[0], listing.labels[6], listing.labels[12]) == (
        "boredom",
        "disgust",
        "breath",
    )


@pytest.mark.parametrize("name", ["vivae", "recanvo"])
def test_a_published_set_becomes_records(tmp_path, name):
    place = _pack(tmp_path / NAMES[name], _contents(name))
    prepared = datasets.prepare(name, data_dir=tmp_path / "d", manual_dir=place, workers=1, progress=False)
    wanted = sorted(about for about in PUBLISHED[name].values() if isinstance(about, tuple))
    groups, labels = prepared.groups[prepared.group], prepared.labels[prepared.label]
    assert sorted(zip(groups.tolist(), labels.tolist())) == wanted
    assert prepared.samples.tolist() == [327, 327]
    assert re.search("2 recordings where the paper has [0-9,]+ .the ", prepared.report["warnings"][0])


def test_the_parts_of_a_set_are_taken_together(tmp_path):
    contents = _contents("nonspeech7k")
    folder = tmp_path / "nonspeech7k"
    for split in ("train", "test"):
        _pack(folder / f"{split}.zip", {path: data for path, data in contents.items() if path.startswith(split)})
    _unpack(folder, {path: data for path, data in contents.items() if path.startswith("metadata")})
    whole = _list("nonspeech7k", _unpack(tmp_path / "whole" / "nonspeech7k", contents))
    listing = _list("nonspeech7k", tmp_path)
    assert listing.recordings == whole.recordings and listing.notes == whole.notes
    for recording in listing.recordings:
        assert len(listing.loader.load(recording.locator)) > 300


def test_a_part_that_is_also_unpacked_counts_once(tmp_path):
    contents = _contents("nonspeech7k")
    whole = _list("nonspeech7k", _unpack(tmp_path / "nonspeech7k", contents).parent)
    _pack(tmp_path / "nonspeech7k" / "test.zip", {path: data for path, data in contents.items() if path[:5] == "test/"})
    listing = _list("nonspeech7k", tmp_path)
    assert listing.recordings == whole.recordings
    assert listing.notes[-1] == "left out, 3 repeats of a recording listed before"
    assert all(len(listing.loader.load(recording.locator)) > 300 for recording in listing.recordings)


def test_unzipped_into_folders_of_their_own_the_splits_are_found(tmp_path):
    moved = {re.sub("^(train|test)/", r"\1/\1/", path): data for path, data in _contents("nonspeech7k").items()}
    listing = _list("nonspeech7k", _unpack(tmp_path / "nonspeech7k", moved))
    assert {(r.path, r.label) for r in listing.recordings} >= {
        ("train/train/a b.wav", "crying"),
        ("test/test/odd.wav", ""),
    }


def test_without_its_csv_a_set_is_named_or_loses_its_labels(tmp_path):
    contents = {path: data for path, data in _contents("nonspeech7k").items() if not path.startswith("metadata of t")}
    listing = _list("nonspeech7k", _unpack(tmp_path / "a" / "nonspeech7k", contents))
    assert {recording.label for recording in listing.recordings} == {""}
    assert [note[:35] for note in listing.notes] == [
        f"there is no metadata of {s} set.csv"[:35] for s in ("train", "test")
    ]
    contents = {path: data for path, data in _contents("vocalsketch").items() if not path.endswith(".csv")}
    listing = _list("vocalsketch", _unpack(tmp_path / "b" / "vocalsketch", contents))
    assert {recording.group for recording in listing.recordings} == {""} and "there is no csv" in listing.notes[0]
    contents = {path: data for path, data in _contents("recanvo").items() if not path.endswith(".csv")}
    with pytest.raises(dataset_listings.MissingError, match="dataset_file_directory.csv"):
        _list("recanvo", _unpack(tmp_path / "c" / "recanvo", contents).parent)


@pytest.mark.parametrize(
    "name, file, data, sentence",
    [
        (
            "recanvo",
            "rec/dataset_file_directory.csv",
            b"Filename,Speaker\n",
            "has the columns filename, speaker and not",
        ),
        ("recanvo", "rec/dataset_file_directory.csv", b"", "has the columns of an empty file and not filename"),
        (
            "nonspeech7k",
            "metadata of test set.csv",
            b"a;b\n",
            "metadata of test set.csv of .* has the columns ab and not",
        ),
        (
            "audioset_vocalization",
            "eval_segments.csv",
            b"id,start\nx,1\n",
            "row 1 of eval_segments.csv .* is 'id,start'",
        ),
        (
            "vocalsketch",
            "v/vocal_imitations.csv",
            b'filename\n"' + b"x" * 200_000 + b'"\n',
            "has the columns|not a csv file",
        ),
        (
            "recanvo",
            "rec/dataset_file_directory.csv",
            b'filename,participant,label\na.wav,"P01,laugh\nb.wav,P02,happy\n',
            "has a quotation mark that is not closed, before the end of line 3: get it again",
        ),
    ],
)
def test_a_csv_that_is_another_is_named(tmp_path, name, file, data, sentence):
    contents = {**_contents(name), file: data}
    with pytest.raises(errors.InputError, match=sentence):
        _list(name, _unpack(tmp_path / name, contents).parent)


def test_a_csv_in_windows_encoding_is_read(tmp_path):
    contents = _contents("nonspeech7k")
    contents["metadata of train set .csv"] = NONSPEECH_TRAIN.lstrip("\ufeff").encode("cp1252")
    listing = _list("nonspeech7k", _unpack(tmp_path / "nonspeech7k", contents))
    assert {recording.label for recording in listing.recordings if "é" in recording.path} == {"yawn"}


def test_two_versions_mixed_are_refused(tmp_path):
    both = _contents("vocalsound")
    both |= {path.replace("16k", "44k"): data for path, data in both.items()}
    with pytest.raises(errors.InputError, match="holds 2 copies of VocalSound .audio_16k/, audio_44k/"):
        _list("vocalsound", _unpack(tmp_path / "vocalsound", both).parent)
    both = _contents("tut_babies")
    both |= {path.replace(HASH, "0123"): data for path, data in both.items()}
    with pytest.raises(errors.InputError, match=f"mixes 2 versions of devt.* .*0123, {HASH}"):
        _list("tut_babies", _unpack(tmp_path / "tut_babies", both).parent)


def test_the_hubs_copy_of_asvp_esd_is_read_too(tmp_path):
    names = {"Speech/actor_0/08_01_90_1.wav": "surprised", "Non-Speech/actor_3/17_02_1.wav": "disgust"}
    listing = _list("asvp_esd", _unpack(tmp_path / "asvp_esd", {name: _wav(name) for name in names}).parent)
    assert {recording.path: recording.label for recording in listing.recordings} == names


def test_audio_in_formats_to_convert_first_is_named(tmp_path):
    files = {"a.wav": _wav("a.wav"), "b.AAX": b"x", "c.silk": b"x", "d": _wav("d"), "e.txt": _wav("e"), "f": b"words"}
    _unpack(tmp_path / "freesound_babies", files)
    listing = _list("freesound_babies", tmp_path)
    assert listing.notes == [
        "left out, 2 files in a format to convert first: b.AAX, c.silk",
        "left out, 1 file like a recording by another name: d",
    ]


def test_the_babies_of_asvp_esd_are_found_in_the_folder_of_the_whole(tmp_path):
    _pack(tmp_path / "asvp_esd" / "ASVP-ESD-Update.zip", _contents("asvp_esd_babies"))
    assert {recording.group for recording in _list("asvp_esd_babies", tmp_path).recordings} == {"actor_50", "actor_200"}


@pytest.mark.parametrize("name", ["recanvo", "vivae", "cnvve", "nnime"])
def test_another_archive_in_the_sets_place_is_named(tmp_path, name):
    _pack(tmp_path / name / "download.zip", {"a/b.txt": b"text"})
    with pytest.raises(
        errors.InputError, match=rf"{name}.* is not .*, which must hold .* the first a/b.txt; get it from"
    ):
        _list(name, tmp_path)


def test_any_audio_is_taken_only_where_it_bears_the_sets_name(tmp_path):
    _unpack(tmp_path / "mixed" / "laughs", {"a.wav": _wav("a.wav"), "train/b.wav": _wav("b.wav")})
    for name in ("freesound_babies", "nnime", "nonspeech7k"):
        with pytest.raises(dataset_listings.MissingError):
            _list(name, tmp_path / "mixed")
    _unpack(tmp_path / "NNIME 2017", {"a.wav": _wav("a.wav")})
    assert [recording.path for recording in _list("nnime", tmp_path / "NNIME 2017").recordings] == ["a.wav"]


def test_a_tar_archive_is_checked_like_a_zip(tmp_path):
    contents = _contents("cnvve")
    packed = _pack(tmp_path / "cnvve.tgz", contents)
    packed.write_bytes(packed.read_bytes()[:500])
    with pytest.raises(
        errors.InputError, match=r"cnvve.tgz \(500 bytes\) is not a complete gzip archive .* download it again"
    ):
        _list("cnvve", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cnvve.tgz"]
    for entry in ("../evil.wav", "/evil.wav"):
        path = _pack(tmp_path / entry.strip("./") / "cnvve.tar", contents)
        with tarfile.open(path, "a") as archive:
            member = tarfile.TarInfo(entry)
            archive.addfile(member, io.BytesIO(b""))
        with pytest.raises(errors.InputError, match="is refused: its entry .*evil.wav' leads out of the folder"):
            _list("cnvve", path)
    (tmp_path / "x.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(errors.InputError, match="is not a complete tar archive"):
        _list("cnvve", tmp_path / "x.tar")
    links = tmp_path / "links" / "cnvve.tar"
    _pack(links, contents)
    with tarfile.open(links, "a") as archive:
        member = tarfile.TarInfo("clean/psst/psst_9_9.wav")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    assert len(_list("cnvve", links).recordings) == 3
    _pack(tmp_path / "twice" / "cnvve.tgz", contents)
    for _ in range(2):  # the second time the unpacked tar lies beside it
        assert len(_list("cnvve", tmp_path / "twice").recordings) == 3


def test_audioset_labels_are_chosen_by_id_or_name(tmp_path):
    place = _unpack(tmp_path / "audioset_vocalization", _contents("audioset_vocalization")).parent
    listing = _list("audioset_vocalization", place, labels=["Cough", "/m/07p6fty"])
    assert {(r.group, r.label) for r in listing.recordings} == {
        ("aaaaaaaaaaa", "Cough"),
        ("ccccccccccc", "Shout"),
        ("eeeeeeeeeee", "Cough"),
    }
    assert listing.labels == ("Cough", "Shout")
    borderline = _list("audioset_vocalization", place, borderline=True)
    assert len(borderline.recordings) == 5 and len(borderline.labels) == 31 + 16
    with pytest.raises(errors.InputError, match="'Speech' is not a label of a vocalization: known are Laughter, "):
        _list("audioset_vocalization", place, labels=["Speech"])


def test_audiosets_lists_do_not_overlap():
    usual, borderline = audioset_vocalization.LABELS, audioset_vocalization.BORDERLINE
    assert (len(usual), len(borderline)) == (31, 16) and not set(usual) & set(borderline)
    assert len({*usual.values(), *borderline.values()}) == 47
    assert all(re.fullmatch("/[mt]/[a-z0-9_]+", key) for key in (*usual, *borderline))


def test_an_odd_recording_is_named_with_its_reason(tmp_path):
    listing = _list("asvp_esd", _unpack(tmp_path / "asvp_esd", _contents("asvp_esd")).parent)
    reasons = {bad["path"].rsplit("/", 1)[1]: bad["reason"] for bad in listing.unreadable}
    assert reasons == {
        "03-02-14-02.wav": "its code 14 is not one of the set's emotions (1 to 13, and 17)",
        "noise.wav": "its name has no emotion code",
    }
    assert dataset_listings.some(["a", "b", "c", "d"]) == "a, b, c, ..."
