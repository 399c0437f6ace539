"""What is said of units, on units of which it is known; and the command line that makes them."""

import json
import math
import pathlib
import types

import numpy as np
import pytest

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import records
from voc2vec_jax.pretraining.units import report as unit_report
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.programs import units as units_program

RECORDS, FRAMES, CLASSES = 60, 20, 4
LABEL = np.arange(RECORDS) % CLASSES


def units_of(flat, clusters):
    ends = np.arange(1, RECORDS + 1, dtype=np.int64) * FRAMES
    flat = np.asarray(flat).astype(np.uint16)
    return unit_store.Units(pathlib.Path(), flat, ends, "p", "c", clusters, 100.0)


def quality_of(flat, clusters, label=LABEL):
    prepared = types.SimpleNamespace(name="some", label=label, labels=np.array(list("abcd")))
    # not a whole prepared set: only what the report reads
    return unit_report.quality.__wrapped__(prepared, units_of(flat, clusters))


def test_units_that_are_the_labels_tell_all_of_them():
    row = quality_of(np.repeat(LABEL, FRAMES), CLASSES)
    assert row["information_bits"] == pytest.approx(2) == row["label_bits"]
    assert (row["purity"], row["label_purity"], row["used"]) == (1.0, 1.0, 4)
    assert row["share_of_labels"] == pytest.approx(1)
    assert row["perplexity"] == pytest.approx(4)
    assert (row["commonest"], row["run_ms"]) == (0.25, 200.0)


def test_units_that_know_nothing_tell_nothing_above_chance():
    same = quality_of(np.zeros(RECORDS * FRAMES), 8)
    assert (same["used"], same["information_bits"], same["commonest"], same["purity"]) == (1, 0.0, 1.0, 0.25)
    of_record = quality_of(np.repeat(np.random.default_rng(0).permutation(RECORDS), FRAMES), RECORDS)
    # a unit for each record tells its label, shuffled or not: nothing but chance
    assert of_record["information_bits"] == pytest.approx(2) == of_record["by_chance_bits"]
    assert of_record["share_of_labels"] == 0.0


def test_mutual_information_of_a_known_table():
    together = np.array([[30, 10], [10, 50]])
    p = together / 100
    wanted = sum(p[i, j] * math.log2(p[i, j] / p[i].sum() / p[:, j].sum()) for i in range(2) for j in range(2))
    assert unit_report.information(together) == pytest.approx(wanted)


def test_sets_without_labels_have_their_use_only():
    row = quality_of(np.repeat(LABEL, FRAMES), CLASSES, np.full(RECORDS, -1))
    assert "purity" not in row
    assert "-" in unit_report.table([row])[1]


def run(*arguments):
    return units_program.main([*arguments])


def test_the_tool_makes_reports_and_keeps(tmp_path, capsys):
    datasets.prepare("synthetic", data_dir=tmp_path, clips=30, progress=False)
    arguments = ("some", f"--data_dir={tmp_path}", "--sets=synthetic", "--clusters=6", "--share=0.5", "--workers=1")
    assert run(*arguments) == 0
    shown = capsys.readouterr()
    assert "audio-seconds per second" in shown.err
    folder = tmp_path / "units" / "some"
    (row,) = json.loads((folder / "report.json").read_text())["sets"]
    assert row["labels"] == 6 and row["information_bits"] > row["by_chance_bits"] > 0
    assert f"{row['information_bits']:.4g}" in shown.out
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    found = unit_store.load_units(records.open_set(tmp_path, "synthetic").folder / "units" / "some")
    assert len(found.ends) == 30
    assert run(*arguments) == 0
    assert "assigned" not in capsys.readouterr().err
    with pytest.raises(errors.InputError, match="does not exist"):
        run("other", *arguments[1:], "--model=nowhere/at/all")
    with pytest.raises(errors.InputError, match="set nowhere is not prepared"):
        run("other", f"--data_dir={tmp_path}", "--sets=nowhere")
