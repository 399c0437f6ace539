"""The picture of the curves is drawn from whatever a run has recorded."""

import pathlib
import threading

import numpy as np
import pytest
from matplotlib import figure, image

from voc2vec_jax import errors
from voc2vec_jax.models import hubert, wav2vec2
from voc2vec_jax.pretraining import curves as pretraining_curves
from voc2vec_jax.runs import series

VIEW = wav2vec2.view(wav2vec2.Config())


def rows(count, total):
    """Metrics as of a run whose contrastive loss falls from chance."""
    rng = np.random.default_rng(0)
    for step in range(1, count + 1):
        share = step / total
        fall = float(np.exp(-6 * share))
        contrastive = 3.6 + 3.05 * fall + 0.1 * rng.normal()
        yield {
            "step": step,
            "loss": contrastive + 0.1 * fall,
            "contrastive": contrastive,
            "diversity": 0.05 + 0.4 * fall,
            "feature_penalty": 0.1 + 2 * fall,
            "accuracy": 0.36 - 0.35 * fall,
            "code_perplexity": 420 - 400 * fall,
            "prob_perplexity": 460 - 420 * fall,
            "temperature": 2 * 0.9995**step,
            "lr": 5e-4 * min(share / 0.08, (1 - share) / 0.92),
            "grad_norm": float(np.exp(0.3 * rng.normal())),
            "audio_seconds_per_second": 3000 + 100 * rng.normal(),
        }
        if step % (total // 10) == 0:
            yield {"step": step, "split": "validation", "loss": contrastive + 0.2, "accuracy": 0.3}


def drawn(rows, folder, monkeypatch, view=VIEW):
    """The panels by title, after drawing."""
    sheets = []
    monkeypatch.setattr(
        figure, "Figure", lambda *a, made=figure.Figure, **k: sheets.append(made(*a, **k)) or sheets[-1]
    )
    pretraining_curves.curves(series.Recorder(rows).history(), folder / "curves.png", view)
    assert image.imread(folder / "curves.png").shape == (840, 1500, 4)
    return {panel.get_title(): panel for panel in sheets[0].axes if panel.get_title()}, sheets[0]


def labels(panel):
    return [line.get_label() for line in panel.lines if not line.get_label().startswith("_")]


def test_all_panels_of_a_real_run_are_drawn_labelled_and_end_at_the_last_step(tmp_path, monkeypatch):
    panels, sheet = drawn(rows(400, 400), tmp_path, monkeypatch)
    assert len(panels) == 8
    assert "400 training steps" in sheet.get_suptitle() and "best validation loss" in sheet.get_suptitle()
    for title, panel in panels.items():
        assert panel.lines and panel.get_ylabel() and panel.get_xlabel() == "step", title
        assert not panel.texts and not panel.patches
    assert labels(panels["contrastive loss"]) == ["training", "chance, 6.66"]
    assert labels(panels["total loss"]) == ["training", "validation"]
    assert labels(panels["contrastive accuracy"]) == ["training", "validation", "chance, 0.010"]
    (rate,) = panels["learning rate"].lines  # not smoothed
    assert rate.get_ydata().max() == pytest.approx(5e-4) and len(rate.get_xdata()) == 400


def test_chance_follows_the_number_of_negatives(tmp_path, monkeypatch):
    view = wav2vec2.view(wav2vec2.Config(negatives=7))
    panels, _ = drawn(list(rows(5, 50)), tmp_path, monkeypatch, view)
    assert labels(panels["contrastive loss"])[-1] == "chance, 3.00"


def test_one_row_missing_fields_nulls_and_nothing_at_all(tmp_path, monkeypatch):
    one, _ = drawn(list(rows(1, 50)), tmp_path, monkeypatch)
    assert all(panel.lines for panel in one.values())
    holes = [{"step": 3, "loss": None, "lr": 1e-4, "grad_norm": 0.0}, {"step": 4, "split": "validation", "loss": 3.0}]
    panels, _ = drawn(holes, tmp_path, monkeypatch)
    empty = {title for title, panel in panels.items() if panel.texts}
    assert empty == set(panels) - {"total loss", "learning rate"}
    none, sheet = drawn([], tmp_path, monkeypatch)
    assert all(panel.texts[0].get_text() == "not recorded" for panel in none.values())
    assert sheet.get_suptitle() == "no training step yet"


def test_the_panels_are_the_objectives_own(tmp_path, monkeypatch):
    row = {"loss": 5.0, "masked_loss": 4.9, "feature_penalty": 0.1, "accuracy": 0.2, "commonest_unit": 0.1}
    row |= {"unit_perplexity": 80.0, "predicted_perplexity": 20.0, "lr": 1e-4, "grad_norm": 1.0}
    given = [{"step": 1, **row, "audio_seconds_per_second": 9.0}, {"step": 1, "split": "validation", **row}]
    view = hubert.view(hubert.Config(classes=104))
    panels, _ = drawn(given, tmp_path, monkeypatch, view)
    assert len(panels) == 8 and all(panel.lines and not panel.texts for panel in panels.values())
    assert labels(panels["loss over masked units"]) == ["training", "validation", "chance, 6.70"]
    assert labels(panels["accuracy of masked units"]) == ["training", "always the commonest unit", "validation"]


def test_nulls_leave_a_gap_and_not_a_zero(tmp_path, monkeypatch):
    given = [{**row, "loss": None if row["step"] == 7 else row["loss"]} for row in rows(20, 400)]
    panels, _ = drawn(given, tmp_path, monkeypatch)
    line = panels["total loss"].lines[0]
    assert 7 not in line.get_xdata() and line.get_ydata().min() > 3


def test_steps_without_rows_are_hatched(tmp_path, monkeypatch):
    panels, sheet = drawn([row for row in rows(60, 60) if not 20 <= row["step"] < 35], tmp_path, monkeypatch)
    assert "the rows of 15 steps are missing (hatched)" in sheet.get_suptitle()
    for title, panel in panels.items():
        (gap,) = (patch for patch in panel.patches if patch.get_hatch())
        assert (gap.get_x(), gap.get_x() + gap.get_width()) == (19.5, 34.5), title


def test_a_long_run_is_drawn_as_bands(tmp_path, monkeypatch):
    panels, _ = drawn(list(rows(5000, 5000)), tmp_path, monkeypatch)
    assert len(panels["total loss"].collections) == 1


def test_smoothing_keeps_constants_and_the_mean_and_has_no_lag():
    np.testing.assert_allclose(pretraining_curves.smooth(np.full(50, 2.5), 7), 2.5)
    ramp = np.arange(50.0)
    np.testing.assert_allclose(pretraining_curves.smooth(ramp, 7)[3:-3], ramp[3:-3])
    np.testing.assert_allclose(pretraining_curves.smooth(ramp, 7)[0], ramp[:4].mean())


def test_a_picture_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(errors.RunError, match="curves.png cannot be written: No such file or directory"):
        pretraining_curves.curves(series.Recorder().history(), pathlib.Path(tmp_path / "none" / "curves.png"), VIEW)


def test_in_the_background_the_last_rows_are_drawn_too(tmp_path, monkeypatch):
    started, may_end, drawn = threading.Event(), threading.Event(), []

    def curves(history, picture, view):
        started.set()
        may_end.wait(60)
        drawn.append(history.rows["train"])

    monkeypatch.setattr(pretraining_curves, "curves", curves)
    recorder = series.Recorder()
    with pretraining_curves.Background(recorder, tmp_path / "curves.png", VIEW) as background:
        for step in (1, 2, 3):
            recorder.add({"step": step})
            background.draw()
            assert started.wait(60) and not drawn
        may_end.set()
    assert drawn == [1, 3]


def test_what_fails_in_the_background_is_told(tmp_path):
    with pytest.raises(errors.RunError, match="curves.png cannot be written"):
        with pretraining_curves.Background(series.Recorder(), tmp_path / "none" / "curves.png", VIEW) as background:
            background.draw()
    with pytest.raises(KeyError, match="another"):
        with pretraining_curves.Background(series.Recorder(), tmp_path / "none" / "curves.png", VIEW) as background:
            background.draw()
            raise KeyError("another")
