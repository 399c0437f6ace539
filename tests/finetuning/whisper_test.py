"""Whisper is fine-tuned like any other family: what its context is, and that its folds' models predict the same."""

import csv
import dataclasses
import pathlib

import numpy as np
import pytest
import tiny_whisper
import torch
import transformers

import voc2vec_jax as v2v
from voc2vec_jax import audio, datasets, errors, finetune
from voc2vec_jax.convert import reader
from voc2vec_jax.finetuning import adaptation, settings, tasks
from voc2vec_jax.models import whisper
from voc2vec_jax.runs import configuration

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "finetune.py"


def config_of(**fields):
    config = configuration.load(f"{CONFIG}:synthetic")
    config.update(fields)
    return config


def source_of(**raw):
    return reader.ModelWeights("whisper", whisper.Config(), {"encoder": {"positions": np.ones(3)}}, raw_config=raw)


@pytest.mark.parametrize(
    ("fields", "context"),
    [
        ({}, "cut"),
        ({"protocol": "paper"}, "padded"),
        ({"context": "padded"}, "padded"),
        ({"context": "cut", "protocol": "paper"}, "cut"),
    ],
)
def test_the_context_follows_the_protocol_unless_it_is_given(fields, context):
    assert settings.in_context(config_of(**fields), source_of()).config.encoder.context == context


def test_what_whisper_does_not_have_is_refused_and_what_it_never_trains_is_frozen():
    with pytest.raises(errors.InputError, match="context 'cut' is a choice for Whisper, and this is hubert"):
        settings.in_context(config_of(context="cut"), dataclasses.replace(source_of(), family="hubert"))
    with pytest.raises(errors.InputError, match="max_seconds is 31.0: this model takes 30 s at most"):
        settings.encoder_config(config_of(max_seconds=31.0), source_of())
    assert settings.encoder_config(config_of(dropouts=False), source_of()).layerdrop == 0
    assert adaptation.of_config(config_of(), source_of()).frozen == ("encoder/positions",)
    assert adaptation.of_config(config_of(fresh=True), source_of()).frozen == ()


def test_its_spectrum_is_masked_only_where_that_is_asked_for():
    shares = [
        settings.augmentation(config, source).share
        for config, source in (
            (config_of(), source_of()),
            (config_of(), source_of(apply_spec_augment=True, mask_time_prob=0.2)),
            (config_of(mask_share=0.1), source_of()),
        )
    ]
    assert shares == [0.0, 0.2, 0.1]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_the_models_of_folds_predict_what_the_run_predicted(protocol, tmp_path):
    """Also in transformers, where every clip is padded: those of the paper's protocol."""
    datasets.prepare("synthetic", data_dir=tmp_path / "data", clips=48, progress=False)
    tiny_whisper.model("WhisperForConditionalGeneration").save_pretrained(tmp_path / "source")
    fields = (f"model={tmp_path / 'source'}", f"data_dir={tmp_path / 'data'}", "folds=2", "epochs=2", "batch_clips=8")
    fields += ("max_seconds=0.5", "peak_lr=3e-3", "warmup_steps=1", f"protocol={protocol}", "lora_rank=2", "rare=keep")
    given = [f"--config={CONFIG}:synthetic", f"--workdir={tmp_path / 'run'}"]
    assert finetune.main([*given, *(f"--config.{field}" for field in fields)]) == errors.EXIT_DONE
    fold = tmp_path / "run" / "fold_00"
    rows = list(csv.DictReader((fold / "predictions.csv").read_text().splitlines()))
    task = tasks.open_task("synthetic", data_dir=tmp_path / "data", max_seconds=0.5)
    place = {name: row for row, name in enumerate(task.ids.tolist())}
    items = [audio.from_int16(clip) for clip in task.read(np.array([place[row["id"]] for row in rows]))]
    model = v2v.from_pretrained(fold / "model")
    expected = np.array([[float(row[f"p:{label}"]) for label in model.labels] for row in rows])
    np.testing.assert_allclose(model.predict(items).probabilities, expected, rtol=0, atol=1e-5)
    model.save_pretrained(tmp_path / "hf")
    theirs = transformers.WhisperForAudioClassification.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        logits = theirs(tiny_whisper.features(theirs.config, items)).logits
    difference = np.abs(torch.softmax(logits, -1).numpy() - expected).max()
    assert difference < 1e-5 if protocol == "paper" else difference > 1e-4
