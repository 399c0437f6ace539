"""What the demo says of a sound: probabilities, a picture over time, the nearest training clips, or a sentence."""

import io
import json
import sys

import fake_runs
import numpy as np
import pytest
import soundfile
import tiny_models
from PIL import Image

from voc2vec_jax import errors
from voc2vec_jax.demo import answering, neighbours
from voc2vec_jax.finetuning import tasks
from voc2vec_jax.inference import pretrained
from voc2vec_jax.programs import demo
from voc2vec_jax.reports import model_card
from voc2vec_jax.runs import program

LABELS = ("cough", "laugh")
COUNT = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of two folds on a prepared set of 12 clips, the first of whose folds has kept its model."""
    place = tmp_path_factory.mktemp("demo")
    tiny_models.recordings(place / "clips", [0.5 + 0.05 * k for k in range(COUNT)], LABELS)
    task = tasks.open_task("folder", data=place / "clips", data_dir=place / "data", least_samples=420)
    run = place / "run"
    fake_runs.write(run, labels=LABELS, dataset=task.name, title="clips", folds=2, planned=2, clips=COUNT)
    folds = json.loads((run / "summary.json").read_bytes())["folds"]
    for fold, entry in enumerate(folds):
        entry["train"] = [name for row, name in enumerate(task.ids.tolist()) if row % 2 != fold]
    fake_runs.edit(run, folds=folds)
    config = {"folds": 2, "datasets": ["folder"], "model": "tiny", "data_dir": str(place / "data"), "max_seconds": 7.0}
    (run / "config.json").write_text(json.dumps(config))
    tiny_models.write(run / "fold_00" / "model", LABELS)
    return place


@pytest.fixture(scope="module")
def answerer(place):
    """The model of the first fold with its training clips."""
    model = pretrained.from_pretrained(place / "run" / "fold_00" / "model")
    clips = neighbours.open_clips(model, model_card.find(place / "run"))
    return answering.Answerer(model, clips)


def test_a_sound_gets_probabilities_a_picture_and_its_own_clip_as_the_nearest(place, answerer):
    path = place / "clips" / "laugh" / "003.wav"
    found = answerer.answer(path)
    told = answerer.model.predict([path])
    assert found.said == told.labels[0]
    assert found.probabilities == dict(zip(LABELS, map(float, told.probabilities[0])))
    assert Image.open(io.BytesIO(answerer.timeline(answerer.read(path)))).width > 800
    first, *others = found.nearest
    assert (first.id, first.label) == ("laugh/003.wav", "laugh")
    assert first.similarity > 0.9999 > others[0].similarity
    assert len(found.nearest) == answering.NEAREST
    assert len(first.sound) == soundfile.info(path).frames and first.sound.dtype == np.int16


def test_the_clips_of_a_fold_are_those_that_it_was_trained_on(answerer):
    clips = answerer.clips
    assert clips.total == COUNT // 2
    assert {int(row) % 2 for row in clips.rows} == {1}


def test_of_many_clips_some_are_drawn_evenly(place, answerer):
    clips = neighbours.open_clips(answerer.model, model_card.find(place / "run"), most=3)
    assert (len(clips.rows), clips.total) == (3, COUNT // 2)
    assert clips.rows.tolist() == [1, 5, 11]
    np.testing.assert_allclose(np.linalg.norm(clips.vectors, axis=1), 1, atol=1e-5)


def test_windows_of_a_timeline_are_bounded_and_reach_the_end(answerer):
    short = answerer.windows(16_000)
    assert [(w.start, w.stop) for w in short] == [(0, 16_000)]
    usual = answerer.windows(5 * 16_000)
    assert [w.start / 16_000 for w in usual] == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    long = answerer.windows(600 * 16_000)
    assert len(long) <= answering.MOST_WINDOWS + 1 and long[-1].stop == 600 * 16_000


def test_sounds_that_cannot_be_answered_are_one_sentence(answerer, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    (tmp_path / "text.wav").write_text("not a sound")
    monkeypatch.setattr(answering, "MOST_SECONDS", 2.0)
    soundfile.write(tmp_path / "long.wav", 0.1 * np.sin(np.arange(40_000)), 16_000)
    for name, said in (
        ("short.wav", "the sound has 100 samples at 16 kHz, and the model needs 420: record more"),
        ("long.wav", "the sound is longer than 2 s: cut it, or use voc2vec evaluate --timeline"),
        ("text.wav", "the sound"),
    ):
        with pytest.raises(errors.InputError, match=said):
            answerer.answer(tmp_path / name)


def test_without_the_data_set_a_sentence_names_the_flag(place, answerer, tmp_path):
    found = model_card.find(place / "run")
    with pytest.raises(errors.InputError, match="is not prepared in .*, so that no training clip .* give --data_dir"):
        neighbours.open_clips(answerer.model, found, str(tmp_path))
    before = (place / "run" / "summary.json").read_bytes()
    try:
        fake_runs.edit(place / "run", labels=["cough", "sigh"])
        with pytest.raises(errors.InputError, match="is not the one that .* was trained on"):
            neighbours.open_clips(answerer.model, found)
    finally:
        (place / "run" / "summary.json").write_bytes(before)


def test_a_demo_that_cannot_be_shown_is_one_sentence(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert program.run(demo.main, [str(place / "run")]) == errors.EXIT_INPUT
    assert "the demo needs gradio: pip install -e '.[demo]'" in capsys.readouterr().err
    monkeypatch.setattr(demo.page, "module", lambda: None)
    assert program.run(demo.main, [str(tiny_models.write(tmp_path / "encoder"))]) == errors.EXIT_INPUT
    assert "has no classes to show: give a fine-tuned model" in capsys.readouterr().err
    assert program.run(demo.main, [str(place / "run"), "--hop_seconds=0", "--neighbours=0"]) == errors.EXIT_INPUT
    assert "hop_seconds is 0: give seconds, above 0 and at most 30" in capsys.readouterr().err
