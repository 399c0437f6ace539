"""Every slip of a newcomer gets one sentence that says what is wrong and what to type instead, and changes nothing."""

import json
import pathlib
import shlex

import checkpoints
import numpy as np
import pytest
import soundfile

from voc2vec_jax import errors, programs
from voc2vec_jax.convert import reader, writer
from voc2vec_jax.programs import main

BLOCKS = (pathlib.Path(__file__).parent / "newcomers.txt").read_text().split("\n\n")[1:]
SLIPS = [tuple(block.strip().splitlines()) for block in BLOCKS]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("cry", "laugh"):
        (folder / "clips" / name).mkdir(parents=True)
        for k in range(2):
            soundfile.write(folder / "clips" / name / f"{k}.wav", np.full(16_000, 0.01 * k), 16_000)
    weights = reader.read(checkpoints.BUNDLED / "fairseq_wav2vec2_base" / "checkpoint.pt")
    writer.write_jax(folder / "model", weights)
    for fold, score in enumerate((0.4, 0.9)):
        writer.write_jax(folder / "folds" / f"fold_{fold:02d}" / "model", weights)
        (folder / "folds" / f"fold_{fold:02d}" / "fold.json").write_text(json.dumps({"best_score": score}))
    (folder / "folds" / "config.json").write_text(json.dumps({"folds": 2, "datasets": ["folder"]}))
    return folder


@pytest.mark.parametrize(("typed", "said"), SLIPS, ids=[typed for typed, _ in SLIPS])
def test_a_slip_is_answered_with_a_sentence(typed, said, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "80")
    before = sorted(place.iterdir())
    status = main.main(shlex.split(typed.removeprefix("$ voc2vec")))
    *notes, last = capsys.readouterr().err.splitlines()
    assert last == said.replace("COMMANDS", ", ".join(programs.COMMANDS))
    assert status == errors.EXIT_INPUT and sorted(place.iterdir()) == before
    assert not [line for line in notes if not line.startswith("model: wav2vec2")]


def test_there_are_more_than_25():
    assert len(SLIPS) == len(set(SLIPS)) > 25
