"""A model on the Hub: its card tells the scores of the run, and nothing that is uploaded tells of the machine."""

import json
import pathlib
import re
import sys

import fake_runs
import huggingface_hub.constants
import local_hub
import numpy as np
import pytest
import tiny_models
import yaml

import voc2vec_jax
from voc2vec_jax import errors
from voc2vec_jax.inference import pretrained, publishing
from voc2vec_jax.programs import publish
from voc2vec_jax.reports import model_card
from voc2vec_jax.runs import program

LABELS = ("anger", "fear", "pain")
SCORES = {"uar": 0.512, "accuracy": 0.55, "f1_macro": 0.498}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose first fold has kept its model."""
    run = tmp_path_factory.mktemp("private") / "runs" / "mine"
    fake_runs.write(run, labels=LABELS, dataset="donateacry", title="Donate-a-Cry, cleaned", system="voc2vec-ls")
    pooled = {name: {"value": value, "low": value - 0.1, "high": value + 0.1} for name, value in SCORES.items()}
    pretraining = {
        "sets": {"vocalsound": {}},
        "unchecked": ["LibriSpeech", "vivae", f"the training data of {run} (not known)"],
    }
    fake_runs.edit(
        run,
        model="alkiskoudounas/voc2vec-ls-pt",
        pooled=pooled,
        hours=0.25,
        leaks={"tested": {"clips": 30, "identical": 20, "same_group": 0}, "pretraining": pretraining},
        baselines={"chance": dict.fromkeys(SCORES, 1 / 3)},
        warnings=[],
    )
    (run / "config.json").write_text(json.dumps({"folds": 3, "datasets": ["donateacry"], "model": "voc2vec-ls"}))
    tiny_models.write(run / "fold_00" / "model", LABELS)
    return run


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hub on this machine, logged in to."""
    with local_hub.running() as found:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield found


def run_program(capsys, *argv):
    """Exit status, standard output, standard error."""
    status = program.run(publish.main, [str(word) for word in argv])
    return status, *capsys.readouterr()


def made(finished, **about):
    """The card's YAML and text."""
    loaded = pretrained.from_pretrained(finished / "fold_00" / "model")
    text = model_card.card(finished, loaded.checkpoint, "me/cries", **{"layout": "hf", **about})
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_published_model_loads_again_and_predicts_the_same(finished, hub, capsys):
    status, out, err = run_program(capsys, finished, "me/cries", "--licence=cc-by-nc-4.0", "--private")
    assert status == 0, err
    assert out.strip() == f"{hub.url}/me/cries"
    assert hub.is_private("me/cries")
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert set(hub.repositories["me/cries"]) == {
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json"
    }  # fmt: skip
    clip = np.sin(np.arange(20_000) / 7).astype(np.float32)
    here = pretrained.from_pretrained(finished).predict([(clip, 16_000)])
    there = voc2vec_jax.from_pretrained("me/cries").predict([(clip, 16_000)])
    assert there.classes == LABELS
    np.testing.assert_allclose(there.probabilities, here.probabilities, rtol=0, atol=1e-6)


def test_a_card_tells_scores_with_intervals_data_licence_and_citation(finished):
    head, body = made(finished, licence="cc-by-nc-4.0")
    assert head["license"] == "cc-by-nc-4.0" and head["base_model"] == "alkiskoudounas/voc2vec-ls-pt"
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "Donate-a-Cry, cleaned"
    assert {each["type"]: each["value"] for each in result["metrics"]} == SCORES
    for said in (
        "# voc2vec LS on Donate-a-Cry, cleaned",
        "| all clips [95 % interval] | 0.512 [0.412, 0.612] | 0.550 [0.450, 0.650] | 0.498 [0.398, 0.598] |",
        "| chance: a class at random | 0.333 |",
        "**20 of 30 tested clips have a near copy in training: this score measures memory.**",
        "This is the model of fold 0 of a cross-validation; on the clips that it did not see: UAR ",
        "[Donate-a-Cry, cleaned](https://github.com/gveres/donateacry-corpus) (licence: ODbL 1.0, contents DbCL 1.0)",
        "LibriSpeech; [VIVAE](",
        "; the training data of a local checkpoint (not known)",
        "10.1109/ICASSP49660.2025.10890672",
        'model = v2v.from_pretrained("me/cries")',
        "In transformers the outputs of padded batches differ",
    ):
        assert said in body, said


def test_a_model_of_all_clips_has_no_score_of_its_own(finished, tmp_path):
    run = tmp_path / "run"
    fake_runs.write(run, labels=LABELS, dataset="own_e78ecb14", title="own_e78ecb14", system="model-3")
    tiny_models.write(run / "final" / "model", LABELS)
    (run / "final" / "final.json").write_text("{}")
    head, body = made_of(run)
    assert "its own score cannot be measured" in body and "of the 3 folds" in body
    assert "# fine-tuned wav2vec2 on own\n" in body and "- fine-tuned and tested on own (not published)" in body
    assert "e78ecb14" not in str(head) + body
    assert "license" not in head and "its owner states none" in body


def made_of(run):
    """As `made`, of the model on all clips."""
    loaded = pretrained.from_pretrained(run / "final" / "model")
    _, head, body = model_card.card(run, loaded.checkpoint, "me/own", "jax").split("---\n", 2)
    return yaml.safe_load(head), body


@pytest.mark.parametrize("source", ["runs/mine", "/data/alice/checkpoints/7", "~/models/x", "alice/secret"])
def test_the_place_of_a_source_is_not_told(finished, source, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    before = (finished / "summary.json").read_bytes()
    try:
        fake_runs.edit(finished, model=source)
        head, body = made(finished)
        assert source not in body + str(head)
        assert "fine-tuned from a local checkpoint" in body and "base_model" not in head
        (tmp_path / "cache" / "models--alice--secret").mkdir(parents=True)  # it was fetched, so it is on the Hub
        assert ("base_model" in made(finished)[0]) == (source == "alice/secret")
    finally:
        (finished / "summary.json").write_bytes(before)


def test_nothing_that_is_uploaded_holds_a_path_of_the_machine(finished, tmp_path, capsys):
    config = finished / "fold_00" / "model" / "config.json"
    before = config.read_bytes()
    raw = json.loads(before)
    raw["raw_config"] = {"model_type": "wav2vec2", "_name_or_path": "alice/secret", "dump": str(tmp_path / "dump")}
    try:
        config.write_text(json.dumps(raw))
        status, out, err = run_program(capsys, finished, "me/cries", f"--output={tmp_path / 'out'}")
    finally:
        config.write_bytes(before)
    assert status == 0, err
    assert "in the layout hf: read its README.md first" in out
    texts = {path.name: path.read_bytes().decode("latin-1") for path in (tmp_path / "out").iterdir()}
    assert "alice" not in texts["config.json"] and "dump" not in texts["config.json"]
    for name, text in texts.items():
        for place in (str(finished), str(tmp_path), str(pathlib.Path.home() / ""), "private"):
            assert not re.search(rf"{re.escape(place)}\b", text), (name, place)


def test_labels_that_look_like_paths_stay(tmp_path):
    loaded = pretrained.from_pretrained(tiny_models.write(tmp_path / "model", ("/m/09x0r", "a/b/c")))
    assert publishing.write_folder(tmp_path / "out", loaded.checkpoint) == "hf"
    found = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert found["id2label"] == {"0": "/m/09x0r", "1": "a/b/c"}


def test_what_transformers_has_no_class_for_is_published_in_our_layout(tmp_path, hub):
    loaded = pretrained.from_pretrained(tiny_models.write(tmp_path / "model", LABELS, pooling="attention"))
    assert loaded.push_to_hub("me/attentive", card="# Mine\n") == f"{hub.url}/me/attentive"
    assert set(hub.repositories["me/attentive"]) == {"README.md", "config.json", "model.safetensors"}
    assert hub.repositories["me/attentive"]["README.md"] == b"# Mine\n"
    assert not hub.is_private("me/attentive")


def test_a_model_without_a_run_says_what_it_is(tmp_path, hub):
    loaded = pretrained.from_pretrained(tiny_models.write(tmp_path / "model"))
    loaded.push_to_hub("me/encoder")
    card = hub.repositories["me/encoder"]["README.md"].decode()
    assert "# wav2vec2" in card and "transformers.Wav2Vec2Model.from_pretrained" in card


def test_what_cannot_be_published_is_one_sentence(finished, hub, tmp_path, capsys, monkeypatch):
    hub.refused = True
    status, _, err = run_program(capsys, finished, "me/cries")
    assert status == errors.EXIT_INPUT and "the Hub does not take me/cries (" in err and "hf auth login" in err
    assert "Traceback" not in err and not hub.repositories
    for words, said in (
        ((finished, "cries"), "'cries' is no name on the Hub: give owner/name, such as me/cries"),
        ((tmp_path, "me/cries"), "is no model of a run of fine-tuning"),
        ((finished, "me/cries", f"--output={finished}"), "already exists; remove it or choose another name"),
    ):
        status, _, err = run_program(capsys, *words)
        assert status == errors.EXIT_INPUT and said in err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    status, _, err = run_program(capsys, finished, "me/cries")
    assert status == errors.EXIT_INPUT and "pip install -e '.[hub]'" in err
