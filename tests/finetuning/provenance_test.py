"""What a model was trained on is known for the paper's systems and our runs, and elsewhere is said to be unknown."""

import json

import pytest

from voc2vec_jax.datasets import catalog
from voc2vec_jax.finetuning import provenance

TEN = catalog.PRETRAINING


def write(path, **values):
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(values))
    return str(path)


@pytest.mark.parametrize(
    ("source", "sets", "unchecked"),
    [
        ("alkiskoudounas/voc2vec", TEN, ()),
        ("alkiskoudounas/voc2vec@main", TEN, ()),
        ("voc2vec-ls", TEN, ("LibriSpeech",)),
        ("alkiskoudounas/voc2vec-hubert-ls-pt", TEN, ("LibriSpeech",)),
        ("alkiskoudounas/voc2vec-as-pt", TEN, ("AudioSet",)),
        ("ALM/hubert-base-audioset", (), ("AudioSet",)),
        ("emotion2vec/emotion2vec_base", (), ("LibriSpeech", "emotional speech")),
        ("microsoft/wavlm-base-plus", (), ("94k h of speech",)),
        ("ComParE_2016", (), ()),
        ("facebook/xyz", (), ("the training data of facebook/xyz (not known)",)),
        ("/nowhere/model.pt", (), ("the training data of /nowhere/model.pt, which is not there, (not known)",)),
        ("/cache/models--facebook--wav2vec2-base/snapshots/0a1", (), ("LibriSpeech",)),
    ],
)
def test_the_papers_systems_are_known_by_name_and_others_are_not(source, sets, unchecked):
    assert provenance.of_model(source) == provenance.TrainingData(tuple(sets), unchecked)


def test_ten_sets_are_those_of_the_paper():
    assert len(TEN) == 10 and set(TEN) <= set(catalog.CATALOG)


def test_runs_are_followed_to_the_first_of_their_chain(tmp_path):
    first = write(tmp_path / "first", sets=["vivae", "nnime"], init_from="alkiskoudounas/voc2vec-ls-pt", model={})
    second = write(tmp_path / "second", sets=["donateacry", "vivae"], init_from=first, model={})
    found = provenance.of_model(second)
    assert found.sets == ("donateacry", "vivae", "nnime", *(name for name in TEN if name != "nnime"))
    assert found.unchecked == ("LibriSpeech",)
    scratch = write(tmp_path / "scratch", sets=["cnvve"], init_from="", model={})
    assert provenance.of_model(scratch) == (("cnvve",), ())


def test_a_circle_ends_and_a_missing_link_is_said(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, sets=["cnvve"], init_from=str(b), model={})
    write(b, sets=["vivae"], init_from=str(tmp_path / "x" / ".." / "a"), model={})
    (tmp_path / "x").mkdir()
    assert provenance.of_model(str(a)) == (("cnvve", "vivae"), ())
    write(b, sets=["vivae"], init_from="runs/gone/away", model={})
    found = provenance.of_model(str(a))
    assert found.sets == ("cnvve", "vivae")
    assert found.unchecked == ("the training data of runs/gone/away, which is not there, (not known)",)


def test_a_folds_model_was_trained_on_the_clips_of_its_data_set(tmp_path):
    run = tmp_path / "run"
    write(run, datasets=["folder"], model="wav2vec2-ls", data="mine.csv")
    model = write(run / "fold_00" / "model", format="voc2vec_jax", raw_config={"_name_or_path": "facebook/other"})
    assert provenance.of_model(model) == provenance.of_model(str(run)) == (("folder",), ("LibriSpeech",))
    (run / "summary.json").write_text(json.dumps({"dataset": "mine_0a1b2c3d"}))
    assert provenance.of_model(model).sets == ("mine_0a1b2c3d",)
    write(run, datasets=["vivae"], model="wav2vec2-ls", fresh=True)
    (run / "summary.json").unlink()
    assert provenance.of_model(model) == (("vivae",), ())


def test_a_folder_may_name_where_it_comes_from(tmp_path):
    hf = write(tmp_path / "hf", model_type="wav2vec2", _name_or_path="ALM/wav2vec2-base-audioset")
    assert provenance.of_model(hf) == ((), ("AudioSet",))
    adapters = write(tmp_path / "adapters", format="voc2vec_jax_adapters", source="facebook/wav2vec2-base")
    assert provenance.of_model(adapters) == ((), ("LibriSpeech",))
    ours = write(tmp_path / "model", format="voc2vec_jax", raw_config={"_name_or_path": hf})
    assert provenance.of_model(ours) == ((), ("AudioSet",))
    silent = write(tmp_path / "silent", model_type="wav2vec2", _name_or_path=str(tmp_path / "silent"))
    assert provenance.of_model(silent).unchecked == (f"the training data of {silent} (not known)",)
    (tmp_path / "silent" / "config.json").write_text("[")
    assert provenance.of_model(silent).unchecked == (f"the training data of {silent} (not known)",)
