"""Tables I and II stand beside what was prepared, and copies are found within and between prepared sets."""

import csv
import pathlib

import numpy as np
import pytest
import soundfile

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import catalog, duplicates, fingerprints, records, stats
from voc2vec_jax.datasets.published import synthetic
from voc2vec_jax.programs import prepare as prepare_program
from voc2vec_jax.runs import program

VOICES = "data/voices/martin/notes/exports"
EMOTIONS = ("achievement", "anger")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> pathlib.Path:
    """Two of the paper's sets: three notes, one of them in mono and in stereo and as a clip of the task's five."""
    root = tmp_path_factory.mktemp("sets")
    notes = [synthetic.Vocalizer(2).load(str(k)) for k in range(9)]
    names = [f"{VOICES}/mono/a.wav", f"{VOICES}/mono/b.wav", f"{VOICES}/mono/c.wav"]
    takes = dict(zip(names, notes))
    takes[f"{VOICES}/stereo/a.wav"] = np.stack([0.7 * notes[0], 0.5 * notes[0]], axis=1)
    for k in range(4):
        takes[f"full_set/S0{k % 3}_{EMOTIONS[k % 2]}_low_0{k}.wav"] = notes[4 + k]
    takes["full_set/S02_anger_low_09.wav"] = 0.3 * notes[0]
    takes["full_set/S02_anger_low_10.wav"] = notes[4]
    for path, samples in takes.items():
        (root / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "in" / path, samples, 16_000)
    for name in ("human_voice", "vivae"):
        datasets.prepare(name, data_dir=root / "d", manual_dir=root / "in", workers=1, progress=False)
    return root / "d"


def _tool(*words: str) -> int:
    return program.run(prepare_program.main, list(words))


def test_the_tables_have_the_papers_rows_in_the_papers_order(data_dir):
    (first, table_1), (second, table_2) = stats.tables(data_dir)
    assert (first, second) == ("Table I, pre-training sets", "Table II, tasks")
    assert [row[0] for row in table_1] == ["set", *catalog.PRETRAINING, "Voc125 (1 of 10)"]
    assert [row[0] for row in table_2] == ["set", *catalog.TASKS]
    rows = {row[0]: row for row in (*table_1, *table_2)}
    assert rows["vocalsound"] == ("vocalsound", "-", "24.37", "-", "20985", "-", "4.18", "-")
    assert rows["donateacry"] == ("donateacry", "-", "5", "-", "0.88", "-", "457", "-", "6.93", "-")
    assert rows["Voc125 (1 of 10)"][2::2] == ("125.19", "68067", "6.67")


def test_the_papers_means_are_its_hours_over_its_counts_but_for_two():
    odd = []
    for source in datasets.CATALOG.values():
        if source.paper_hours:
            least, most = ((source.paper_hours + d) * 3600 / source.paper_samples for d in (-0.006, 0.006))
            if not least - 0.02 <= source.paper_mean_seconds <= most + 0.02:
                odd.append(source.name)
    assert odd == ["asvp_esd_babies", "nonverbal_vocalization"]  # 7.82 s and 2.70 s, the table says 8.22 and 3.10


def test_counts_are_those_of_the_prepared_set(data_dir):
    prepared = records.open_set(data_dir, "vivae")
    ours = stats.count(prepared)
    assert (ours.files, ours.classes, ours.groups) == (6, 2, 3)
    assert stats.count(records.open_set(data_dir, "human_voice"))[2:] == (0, 1)
    assert ours.hours == pytest.approx(prepared.samples.sum() / 16_000 / 3600)
    assert ours.mean_seconds == pytest.approx(prepared.samples.mean() / 16_000)


def test_differences_are_told_with_what_is_known_of_them(data_dir):
    human_voice, vivae = stats.differences(data_dir)
    assert human_voice.startswith("human_voice: 4 recordings, the paper has 179 (-175); 0.0")
    assert human_voice.endswith("h, the paper has 0.06: the paper counts the mono and the stereo export of 75 notes")
    assert "; 2 classes, the paper has 6: the full set has 1085 clips" in vivae


def test_copies_are_found_within_a_set_between_sets_and_between_pretraining_and_tasks(data_dir):
    found = duplicates.find(data_dir, ["human_voice", "vivae"], workers=1)
    mono, stereo, task = f"{VOICES}/mono/a.wav", f"{VOICES}/stereo/a.wav", "full_set/S02_anger_low_09.wav"
    assert [pair[:5] for pair in found] == [
        ("human_voice", mono, "human_voice", stereo, "near"),
        ("human_voice", mono, "vivae", task, "near"),
        ("human_voice", stereo, "vivae", task, "near"),
        ("vivae", "full_set/S00_achievement_low_00.wav", "vivae", "full_set/S02_anger_low_10.wav", "identical"),
    ]
    rows = duplicates.summary(found)
    assert rows[1:] == [
        ("human_voice", "human_voice", "0", "1", "2", ""),
        ("human_voice", "vivae", "0", "2", "3", "pre-training meets task"),
        ("vivae", "vivae", "1", "0", "2", ""),
    ]


def test_fingerprints_are_kept_until_the_set_changes(data_dir, monkeypatch):
    prepared = records.open_set(data_dir, "vivae")
    first = fingerprints.cached(prepared, data_dir)
    monkeypatch.setattr(fingerprints, "_of_rows", None)
    np.testing.assert_array_equal(fingerprints.cached(prepared, data_dir).codes, first.codes)
    assert records.list_sets(data_dir) == ["human_voice", "vivae"]
    assert not list((data_dir / "fingerprints").glob("*.tmp"))
    with pytest.raises(TypeError):
        fingerprints.cached(records.PreparedSet(**_other(prepared)), data_dir)


def _other(prepared: records.PreparedSet) -> dict:
    names = ("name", "folder", "samples", "recording", "group", "label", "start_sample", "shard_ends")
    return {**{name: getattr(prepared, name) for name in names}, "fingerprint": "another"}


def test_the_number_of_workers_and_blocks_changes_nothing(data_dir, monkeypatch):
    prepared = records.open_set(data_dir, "vivae")
    whole = fingerprints._of_rows(prepared, 1)
    monkeypatch.setattr(fingerprints, "BLOCK_ROWS", 2)
    for workers in (1, 2):
        other = fingerprints._of_rows(prepared, workers)
        for name in ("codes", "audible", "starts", "digests"):
            np.testing.assert_array_equal(getattr(other, name), getattr(whole, name))
    assert isinstance(whole, fingerprints.Fingerprints)


def test_the_tool_prints_both_reports(data_dir, tmp_path, capsys):
    assert _tool("stats", f"--data_dir={data_dir}") == errors.EXIT_DONE
    out = capsys.readouterr().out
    assert "Table I, pre-training sets\nset " in out and "Table II, tasks\nset " in out and "the paper has 179" in out
    assert (
        _tool("duplicates", f"--data_dir={data_dir}", f"--output={tmp_path / 'pairs.csv'}", "--workers=1")
        == errors.EXIT_DONE
    )
    out = capsys.readouterr().out
    assert "human_voice  vivae        0          2     3        pre-training meets task" in out
    assert out.splitlines()[-1].startswith("4 pairs in human_voice, vivae: ")
    with (tmp_path / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["second_set"] for row in rows] == ["vivae", "vivae", "human_voice", "vivae"]
    assert rows[0]["kind"] == "near" and 0.7 < float(rows[0]["similarity"]) <= 1


def test_the_aliases_are_the_papers_sets(tmp_path, capsys):
    words = ["voc125", "tasks", "vivae", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'd'}"]
    assert _tool(*words, "--download=false") == errors.EXIT_INPUT
    out, err = capsys.readouterr()
    assert err.startswith("error: 16 of 16 sets are not prepared: audioset_vocalization, freesound_babies, ")
    for name in (*catalog.PRETRAINING, *catalog.TASKS):
        source = datasets.CATALOG[name]
        line = next(line for line in out.splitlines() if line.startswith(f"{name}: "))
        for part in (source.url, source.licence, source.holds, str(tmp_path / name)):
            assert part in line
