"""A run folder of folds says which model to take, and the names of systems stand for their weights."""

import json

import checkpoints
import pytest

from voc2vec_jax import errors
from voc2vec_jax.convert import paper_systems, reader, sources, writer

CHECKPOINT = checkpoints.BUNDLED / "fairseq_wav2vec2_base" / "checkpoint.pt"


@pytest.fixture(scope="module")
def weights():
    return reader.read(CHECKPOINT)


def keep(weights, folder, score=None):
    """A model as a fold keeps it."""
    writer.write_jax(folder / "model", weights)
    if score is not None:
        (folder / "fold.json").write_text(json.dumps({"best_score": score}))
    return folder / "model"


def begun(folder):
    """A run folder of fine-tuning."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"folds": 3, "datasets": ["x"]}))
    return folder


def refused(source):
    with pytest.raises(errors.InputError) as caught:
        sources.read(source)
    return str(caught.value)


def test_of_several_folds_the_best_by_validation_is_named(tmp_path, weights):
    run = begun(tmp_path / "run")
    for fold, score in enumerate((0.4, 0.9, 0.6)):
        keep(weights, run / f"fold_{fold:02d}", score)
    assert refused(run) == f"{run} holds the models of 3 folds; give one of them, such as the best, {run}/fold_01/model"


def test_the_only_fold_is_taken_and_said(tmp_path, weights, capsys):
    run = begun(tmp_path / "run")
    kept = keep(weights, run / "fold_02", 0.5)
    assert sources.read(run).parameters == weights.parameters
    assert f"taken is {kept}" in capsys.readouterr().err


def test_a_model_of_all_clips_wins_once_it_is_complete(tmp_path, weights, capsys):
    run = begun(tmp_path / "run")
    keep(weights, run / "fold_00", 0.5)
    final = keep(weights, run / "final")
    sources.read(run)
    assert "taken is" in (said := capsys.readouterr().err) and str(final) not in said
    (run / "final" / "final.json").write_text("{}")
    sources.read(run)
    assert f"taken is {final}" in capsys.readouterr().err


def test_without_any_model_the_remedy_is_a_final_one(tmp_path):
    run = begun(tmp_path / "run")
    (run / "fold_00").mkdir()
    assert "has kept no model: run it again with --config.final=true" in refused(run)


def test_the_folder_of_a_fold_stands_for_its_model(tmp_path, weights):
    keep(weights, tmp_path / "run" / "fold_00")
    keep(weights, tmp_path / "run" / "final")
    for name in ("fold_00", "final"):
        assert sources.read(tmp_path / "run" / name).parameters == weights.parameters


def test_a_folder_of_runs_names_a_model_in_it(tmp_path, weights):
    keep(weights, tmp_path / "grid" / "vivae" / "voc2vec" / "fold_00", 0.2)
    best = keep(weights, tmp_path / "grid" / "vivae" / "hubert" / "fold_01", 0.3)
    assert refused(tmp_path / "grid").endswith(f"it holds 2 models of runs: give one, such as {best}")
    (tmp_path / "pretraining" / "a" / "checkpoints").mkdir(parents=True)
    assert refused(tmp_path / "pretraining").endswith(f"give one, such as {tmp_path}/pretraining/a")


def test_names_of_systems_are_fetched_by_their_hub_ids(monkeypatch, tmp_path, weights, capsys):
    asked = []
    monkeypatch.setattr(sources, "_fetch", lambda name: asked.append(name) or CHECKPOINT)
    monkeypatch.chdir(tmp_path)
    assert sources.read("voc2vec-ls").parameters == weights.parameters
    assert asked == [paper_systems.SYSTEMS["voc2vec-ls"].source]
    writer.write_jax(tmp_path / "voc2vec-ls", weights)
    capsys.readouterr()
    sources.read("voc2vec-ls")
    assert len(asked) == 1 and "voc2vec-ls is taken as the folder here" in capsys.readouterr().err
    assert "opensmile has no weights to load" in refused("opensmile")


def test_a_name_that_is_nearly_a_system_is_answered_with_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc2ve").mkdir()
    assert "voc2vec-sl does not exist (did you mean voc2vec-ls?)" in refused("voc2vec-sl")
    assert "voc2v does not exist (did you mean voc2ve?)" in refused("voc2v")
    assert "'' names no model: give a folder" in refused("")
