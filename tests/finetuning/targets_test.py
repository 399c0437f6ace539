"""Tags and numbers as targets: what labels say, losses and their scale, folds, and whole runs from the command line."""

import csv
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import tiny_learners
import tiny_models
import torch
from sklearn import metrics as sklearn_metrics

import voc2vec_jax as v2v
from voc2vec_jax import errors, evaluate, finetune
from voc2vec_jax.convert import reader, writer
from voc2vec_jax.finetuning import folds, learners, scoring, targets
from voc2vec_jax.inference import answers
from voc2vec_jax.ops import losses
from voc2vec_jax.runs import program

SHORT = ("--config.folds=3", "--config.epochs=3", "--config.warmup_steps=4", "--config.peak_lr=1e-2")
SHORT += ("--config.batch_clips=8", "--config.group_copies=false", "--config.leaks=false")
SHORT += ("--config.save_models=all",)


def read(kind, *labels):
    texts, label = np.unique(labels, return_inverse=True)
    return targets.read(kind, texts, label, np.array([f"{k}.wav" for k in range(len(labels))]), "mine")


def test_tags_are_read_whatever_their_order():
    found = read("multilabel", "cry|cough", "sigh", "cough | cry", "cough|cough")
    assert found.labels == ("cough", "cry", "sigh")
    assert found.values.tolist() == [[1, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 0]]
    assert found.label[0] == found.label[2] and len(set(found.label.tolist())) == 3
    assert targets.described("multilabel", found.labels, found.values) == "3 labels, 1.5 a clip"


def test_numbers_are_read_and_binned_by_quantiles():
    numbers = np.random.default_rng(0).permutation(100) ** 2
    found = read("regression", *map(str, numbers))
    assert found.labels == ("value",) and found.values[:, 0].tolist() == numbers.tolist()
    assert np.bincount(found.label).tolist() == [10] * 10
    assert (np.diff(found.label[np.argsort(numbers)]) >= 0).all()
    assert targets.described("regression", found.labels, found.values) == "numbers from 0 to 9801"
    assert len(set(targets.bins(np.repeat([1.0, 2.0], 50)))) == 2


@pytest.mark.parametrize(
    ("kind", "labels", "says"),
    [
        ("classes", ("a", "b|c"), "'b|c' of mine names several classes: give --config.target=multilabel"),
        ("classes", ("a", "a"), "all 2 clips are of one class (a) in mine"),
        ("multilabel", ("a|b", "|"), "the label '|' of 1.wav in mine has an empty part"),
        ("multilabel", ("a|b", "a||c"), "the label 'a||c' of 1.wav in mine has an empty part"),
        ("multilabel", ("a|b", "a"), "every clip of mine has the label a"),
        ("regression", ("1.5", "soft"), "the label 'soft' of 1.wav in mine is no finite number"),
        ("regression", ("1.5", "nan"), "the label 'nan' of 1.wav in mine is no finite number"),
        ("regression", ("1", "1.0"), "all 2 labels of mine are 1, so that there is nothing to learn"),
    ],
)
def test_labels_of_another_kind_are_refused_in_one_sentence(kind, labels, says):
    with pytest.raises(errors.InputError) as fault:
        read(kind, *labels)
    assert says in str(fault.value) and "\n" not in str(fault.value)


def test_the_loss_of_tags_is_torchs():
    rng = np.random.default_rng(0)
    logits = (30 * rng.standard_normal((5, 3))).astype(np.float32)
    true = (rng.random((8, 3)) < 0.4).astype(np.float32)
    weights, rows = np.array([3.0, 0.5, 1.0], np.float32), np.array([4, 0, 7, 2, -1])
    fold, data = {"class_weights": jnp.array(weights)}, {"labels": jnp.array(true)}
    total, count = learners.weighted_tags(jnp.array(logits), data, fold, jnp.array(rows), None)
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weights))
    expected = loss(torch.tensor(logits[:4]), torch.tensor(true[rows[:4]])).item()
    assert float(total / count) == pytest.approx(expected, rel=1e-5)
    assert scoring.loss("multilabel", true[rows[:4]], logits[:4], weights) == pytest.approx(expected, rel=1e-5)
    extreme = losses.binary_cross_entropy(jnp.array([[1e4, -1e4]]), jnp.array([[0.0, 1.0]]), jnp.ones((1, 2)))
    np.testing.assert_allclose(extreme, [[1e4, 1e4]])


def test_numbers_are_learnt_scaled_and_given_in_their_units():
    true = np.array([[100.0], [140.0], [120.0]], np.float32)
    fold = {"target_mean": jnp.array([120.0]), "target_scale": jnp.array([20.0])}
    logits, rows = jnp.array([[-1.0], [0.5], [0.25], [9.0]]), jnp.array([0, 1, 2, -1])
    total, count = learners.weighted_squares(logits, {"labels": jnp.array(true)}, fold, rows, None)
    assert float(total) == pytest.approx(0.25 + 0.0625) and float(count) == 3
    units = np.asarray(learners.in_units(logits[:3], fold))
    np.testing.assert_allclose(units, [[100], [130], [125]])
    weight = np.array([1 / 400], np.float32)
    assert scoring.loss("regression", true, units, weight) == pytest.approx(float(total / count), rel=1e-6)


@pytest.mark.parametrize("whole", [True, False])
def test_a_released_model_needs_no_scale(whole):
    learner = learners.FeatureLearner(1, 4, 5, kind="regression")
    params = learner.init(jax.random.key(0))
    fold = {"target_mean": jnp.array([7.0]), "target_scale": jnp.array([3.0])}
    fold |= {"shift": jnp.zeros(4), "scale": jnp.ones(4)}
    data = {"features": jax.random.normal(jax.random.key(1), (6, 4))}
    expected = learner.outputs(params, fold, data, jnp.arange(6))[0]
    if whole:
        named = {"head": {"projector": params["linear_0"], "classifier": params["linear_1"]}}
        head = learners.released(named, fold)["head"]
        found = {"linear_0": head["projector"], "linear_1": head["classifier"]}
    else:
        found = learners.released(params, fold)
    plain = {"shift": fold["shift"], "scale": fold["scale"]}
    np.testing.assert_allclose(learner.outputs(found, plain, data, jnp.arange(6))[0], expected, rtol=1e-5)


def test_folds_share_out_every_tag():
    rng = np.random.default_rng(0)
    tags = (rng.random((200, 5)) < [0.6, 0.4, 0.3, 0.1, 0.06]).astype(np.float32)
    groups = rng.integers(0, 60, 200)
    splits = folds.strict(tags, groups, 4, 0, 0.15)
    shares = np.array([tags[split.test].sum(0) for split in splits]) / tags.sum(0)
    assert np.abs(shares - 0.25).max() < 0.1
    assert np.array([tags[split.train].sum(0) for split in splits]).min() > 0
    for split in splits:
        assert not np.intersect1d(groups[split.test], groups[np.r_[split.train, split.validation]]).size
    assert sorted(np.concatenate([split.test for split in splits]).tolist()) == list(range(200))


def test_numbers_that_only_one_group_has_can_be_validated_on():
    label = np.repeat(np.arange(6), 5)  # a number for each speaker
    with pytest.raises(errors.InputError, match="no group of clips to spare for validation"):
        folds.strict(label, label, 3)
    splits = folds.strict(label, label, 3, every_class=False)
    assert all(len(split.validation) and len(split.train) for split in splits)


@pytest.mark.parametrize(("kind", "labels"), [("multilabel", ("a", "b", "c")), ("regression", ("value",))])
def test_a_saved_model_keeps_what_its_outputs_say(kind, labels, tmp_path):
    made = reader.read(tiny_models.write(tmp_path / "source", labels))
    made = reader.ModelWeights(made.family, made.config, made.params, labels=labels, kind=kind, normalize=True)
    writer.write_jax(tmp_path / "own", made)
    writer.write_hf(tmp_path / "hf", made)
    problem = json.loads((tmp_path / "hf" / "config.json").read_text())["problem_type"]
    assert problem == {"multilabel": "multi_label_classification", "regression": "regression"}[kind]
    clip = [np.random.default_rng(0).standard_normal(4000).astype(np.float32)]
    found = [v2v.from_pretrained(tmp_path / name, dtype="float32").predict(clip) for name in ("own", "hf")]
    for one in found:
        np.testing.assert_allclose(one.probabilities, found[0].probabilities, atol=1e-5)
        assert one.labels == (answers.in_words(kind, labels, one.probabilities[0]),)
    logits = theirs(tmp_path / "hf", clip[0])
    expected = 1 / (1 + np.exp(-logits)) if kind == "multilabel" else logits
    np.testing.assert_allclose(found[0].probabilities[0], expected, atol=1e-4)


def theirs(folder, clip):
    """transformers' logits of a clip."""
    import transformers

    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    model = transformers.Wav2Vec2ForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**extractor(clip, sampling_rate=16_000, return_tensors="pt")).logits[0].numpy()


TONES = {"hum": 300, "hiss": 3000, "beep": 1000}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Tones whose names are their tags, and tones whose pitch is their number; six speakers."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    tags, numbers = [("path", "label", "group")], [("path", "label", "group")]
    t = np.arange(6000) / 16_000
    for k in range(36):
        own = [name for name in TONES if rng.random() < 0.5] or ["hum"]
        wave = sum(0.2 * np.sin(2 * np.pi * TONES[name] * t) for name in own) + 0.02 * rng.standard_normal(6000)
        soundfile.write(folder / f"tag{k:02d}.wav", wave, 16_000)
        tags.append((f"tag{k:02d}.wav", "|".join(own), f"s{k % 6}"))
        value = rng.uniform(1, 7)
        wave = 0.3 * np.sin(2 * np.pi * 200 * value * t) + 0.02 * rng.standard_normal(6000)
        soundfile.write(folder / f"number{k:02d}.wav", wave, 16_000)
        numbers.append((f"number{k:02d}.wav", f"{100 + 10 * value:.2f}", f"s{k % 6}"))
    for name, rows in (("multilabel", tags), ("regression", numbers)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_models.write(tmp_path_factory.mktemp("models") / "source")


def run(clips, source, kind, workdir, *more):
    given = [f"--config={tiny_learners.CONFIG}:folder", f"--config.data={clips / kind}.csv", f"--config.target={kind}"]
    given += [f"--config.data_dir={workdir.parent / 'data'}", f"--workdir={workdir}"]
    return program.run(finetune.main, [*given, f"--config.model={source}", *SHORT, *more])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_a_run_from_the_command_line_to_the_evaluation(kind, clips, source, tmp_path):
    workdir = tmp_path / "run"
    assert run(clips, source, kind, workdir, "--config.mixup=0.2") == 0
    rows = assert_told(kind, clips, workdir)
    assert_evaluated(kind, clips, workdir, [row for row in rows if row["fold"] == "0"])


@pytest.mark.parametrize("kind", ["multilabel", pytest.param("regression", marks=pytest.mark.slow)])
def test_networks_on_features_learn_them_too(kind, clips, tmp_path):
    """The features tell the targets, so that high scores say that labels and outputs belong together."""
    own = list(csv.reader((clips / f"{kind}.csv").read_text().splitlines()))[1:]
    values = [[float(row[1]) - 130] if kind == "regression" else [name in row[1] for name in TONES] for row in own]
    vectors = np.array(values, np.float32) + 0.01 * np.random.default_rng(0).standard_normal((36, len(values[0])))
    np.savez(tmp_path / "x.npz", ids=np.array([row[0] for row in own]), vectors=vectors.astype(np.float32))
    more = ("--config.how=features", "--config.epochs=25")
    assert run(clips, tmp_path / "x.npz", kind, tmp_path / "run", *more) == 0
    assert_told(kind, clips, tmp_path / "run", least=0.8)


def assert_told(kind, clips, workdir, least=-1.0):
    """summary.json and predictions.csv say the same of the labels that were given; returns the latter."""
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["kind"] == kind and set(summary["mean"]) == set(scoring.KINDS[kind].titles)
    rows = list(csv.DictReader((workdir / "predictions.csv").read_text().splitlines()))
    labels = dict((row[0], row[1]) for row in csv.reader((clips / f"{kind}.csv").read_text().splitlines()[1:]))
    assert sorted(row["path"] for row in rows) == sorted(labels)
    if kind == "regression":
        true = [float(labels[row["path"]]) for row in rows]
        found = [float(row["predicted"]) for row in rows]
        assert 90 < min(found) <= max(found) < 190 and all(row["probability"] == "" for row in rows)
        expected = sklearn_metrics.mean_absolute_error(true, found)
        assert summary["pooled"]["mae"]["value"] == pytest.approx(expected, abs=1e-3)  # six digits are written
    else:
        names = sorted(TONES)
        true = [[name in labels[row["path"]].split("|") for name in names] for row in rows]
        found = np.array([[float(row[f"p:{name}"]) for name in names] for row in rows])
        expected = sklearn_metrics.average_precision_score(true, found, average="macro")
        assert summary["pooled"]["map"]["value"] == pytest.approx(expected, abs=1e-4)
        said = ["|".join(name for name, p in zip(names, row) if p >= 0.5) for row in found]
        assert [row["predicted"] for row in rows] == said
    assert summary["pooled"][scoring.KINDS[kind].monitor]["value"] > least
    return rows


def assert_evaluated(kind, clips, workdir, rows):
    """Batch evaluation with a fold's model gives what the fold wrote for its test clips."""
    output = workdir.parent / "out"
    given = [f"--model={workdir / 'fold_00' / 'model'}", f"--input={clips / kind}.csv", f"--output={output}"]
    assert program.run(evaluate.main, [*given, "--predict", "--dtype=float32"]) == 0
    table = {pathlib.PurePath(row["path"]).name: row for row in pq.read_table(output / "parts").to_pylist()}
    said = json.loads((output / "metrics.json").read_text())
    assert said["clips"] == 36 and set(scoring.KINDS[kind].titles) <= set(said)
    for row in rows:
        own = table[row["path"]]
        if kind == "regression":
            assert own["value"] == pytest.approx(float(row["predicted"]), abs=2e-2)
        else:
            np.testing.assert_allclose(
                own["probabilities"], [float(row[f"p:{name}"]) for name in sorted(TONES)], atol=1e-4
            )
            assert own["predicted"] == row["predicted"]


def test_balanced_epochs_are_for_classes(clips, source, tmp_path, capsys):
    assert run(clips, source, "regression", tmp_path / "run", "--config.sampling=balanced") == 2
    assert "--config.target=regression has none: leave one out" in capsys.readouterr().err
