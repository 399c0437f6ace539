"""Scores by kind: classes that count, tags and numbers as the references compute them, and pooled intervals."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from voc2vec_jax.finetuning import scoring
from voc2vec_jax.ops import metrics


def one_hot(classes, count):
    return np.eye(count, dtype=np.float32)[classes]


def test_one_wrong_clip_taken_for_an_absent_class_costs_one_clip_in_strict_and_a_class_in_paper():
    true = np.repeat([0, 1, 2], 15)
    predicted = np.where(np.arange(45) == 0, 3, true)
    strict = scoring.scores("classes", true, one_hot(predicted, 4), "tested")
    paper = scoring.scores("classes", true, one_hot(predicted, 4), "occurring")
    assert strict["uar"] == pytest.approx((14 / 15 + 2) / 3) and paper["uar"] == pytest.approx((14 / 15 + 2) / 4)
    assert strict["f1_macro"] == pytest.approx((28 / 29 + 2) / 3)
    assert strict["accuracy"] == paper["accuracy"] == pytest.approx(44 / 45)
    assert scoring.averaged_classes("auto", "strict") == "tested"
    assert scoring.averaged_classes("auto", "paper") == "occurring"
    assert scoring.averaged_classes("occurring", "strict") == "occurring"


@pytest.mark.parametrize("seed", range(20))
def test_scores_over_tested_classes_are_scikit_learns_with_their_labels(seed):
    rng = np.random.default_rng(seed)
    classes, n = int(rng.integers(2, 12)), int(rng.integers(1, 30))
    true, predicted = rng.integers(0, classes, n), rng.integers(0, classes, n)
    ours = scoring.scores("classes", true, one_hot(predicted, classes), "tested")
    options = dict(average="macro", zero_division=0, labels=np.unique(true))
    assert ours["uar"] == pytest.approx(reference.recall_score(true, predicted, **options))
    assert ours["f1_macro"] == pytest.approx(reference.f1_score(true, predicted, **options))
    matrices = np.stack([metrics.confusion(true, predicted, classes)] * 2)
    for name, value in metrics.of_confusion(matrices, "tested").items():  # many at once, as the bootstrap has them
        np.testing.assert_allclose(value, [ours[name]] * 2)


@pytest.mark.parametrize("seed", range(10))
def test_tags_are_scored_as_scikit_learn_does_with_weights_and_ties(seed):
    rng = np.random.default_rng(seed)
    true = rng.random((40, 4)) < [0.5, 0.2, 0.0, 1.0]  # no clip has tag 2, all have tag 3
    true[:2, :2] = [[True, True], [False, False]]
    logits = np.round(rng.normal(size=(40, 4)) + true, 1)
    weights = rng.integers(0, 3, (3, 40)).astype(float)
    weights[:, :2] = 1  # both kinds of clips are there in any case
    found = metrics.of_tags(true, logits, weights)
    for row, weight in enumerate(weights):
        precision = [
            reference.average_precision_score(true[:, k], logits[:, k], sample_weight=weight) for k in (0, 1, 3)
        ]
        auroc = [reference.roc_auc_score(true[:, k], logits[:, k], sample_weight=weight) for k in (0, 1)]
        assert found["map"][row] == pytest.approx(np.mean(precision))
        assert found["auroc"][row] == pytest.approx(np.mean(auroc))
    plain = scoring.scores("multilabel", true.astype(np.float32), logits, "tested")
    assert plain["map"] == pytest.approx(metrics.of_tags(true, logits)["map"][0])


def test_no_tag_at_all_scores_what_chance_approaches():
    assert scoring.scores("multilabel", np.zeros((3, 2)), np.zeros((3, 2)), "tested") == {"map": 0, "auroc": 0.5}


def test_numbers_are_scored_as_lin_1989_and_pearson_do():
    rng = np.random.default_rng(0)
    true, values = rng.normal(3, 2, 50), rng.normal(1, 1, 50)
    values += true
    found = scoring.scores("regression", true, values[:, None], "tested")
    lin = 2 * np.cov(true, values, ddof=0)[0, 1] / (true.var() + values.var() + (true.mean() - values.mean()) ** 2)
    assert found["ccc"] == pytest.approx(lin)
    assert found["pearson"] == pytest.approx(stats.pearsonr(true, values).statistic)
    assert found["mae"] == pytest.approx(np.abs(true - values).mean())
    twice = np.repeat(true, 2), np.repeat(values, 2)[:, None]
    weighted = metrics.of_numbers(true[:, None], values[:, None], np.full((1, 50), 2.0))
    assert weighted["ccc"][0] == pytest.approx(scoring.scores("regression", *twice, "tested")["ccc"])
    constant = scoring.scores("regression", true, np.full((50, 1), 2.0), "tested")
    assert constant["ccc"] == pytest.approx(0) and constant["pearson"] == 0
    far = scoring.scores("regression", true + 1e6, values[:, None] + 1e6, "tested")
    assert far["ccc"] == pytest.approx(lin, rel=1e-6)


@pytest.mark.parametrize("kind", scoring.KINDS)
def test_no_clips_have_no_scores(kind):
    with pytest.raises(ValueError, match="no clips"):
        scoring.scores(kind, np.zeros((0, 2)), np.zeros((0, 2)), "tested")


# --- all clips together


def by_hand(true, predicted, groups, draws):
    """The same percentiles, clip by clip."""
    own = np.where(groups < 0, groups.max() + 1 + np.arange(len(groups)), groups)
    used, rng, found = np.unique(own), np.random.default_rng(0), []
    for start in range(0, draws, scoring.CHUNK):
        for drawn in rng.integers(0, len(used), (min(scoring.CHUNK, draws - start), len(used))):
            rows = np.concatenate([np.flatnonzero(own == used[one]) for one in drawn])
            options = dict(average="macro", labels=np.unique(true[rows]), zero_division=0)
            found.append(reference.recall_score(true[rows], predicted[rows], **options))
    return np.percentile(found, (2.5, 97.5))


def test_pooled_scores_have_the_percentiles_of_whole_groups_drawn_again():
    rng = np.random.default_rng(1)
    true, groups = rng.integers(0, 3, 40), np.repeat([0, 1, 2, 3, -1], 8)
    predicted = np.where(rng.random(40) < 0.6, true, rng.integers(0, 3, 40))
    found = scoring.pooled("classes", true, one_hot(predicted, 3), groups, "tested", draws=150)
    assert found["uar"]["value"] == pytest.approx(reference.recall_score(true, predicted, average="macro"))
    np.testing.assert_allclose([found["uar"]["low"], found["uar"]["high"]], by_hand(true, predicted, groups, 150))
    again = scoring.pooled("classes", true, one_hot(predicted, 3), groups, "tested", draws=150)
    assert found == again and list(found) == list(scoring.KINDS["classes"].titles)


def test_clips_of_one_speaker_widen_the_interval():
    """Ten copies of each clip add nothing, and an interval over clips would be about a third as wide."""
    rng = np.random.default_rng(2)
    true = np.repeat(rng.integers(0, 2, 30), 10)
    predicted = np.where(np.repeat(rng.random(30) < 0.7, 10), true, 1 - true)

    def width(groups):
        found = scoring.pooled("classes", true, one_hot(predicted, 2), groups, "tested")["accuracy"]
        assert found["low"] <= found["value"] <= found["high"]
        return found["high"] - found["low"]

    assert width(np.repeat(np.arange(30), 10)) > 2.5 * width(np.full(300, -1))


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_other_kinds_are_pooled_too(kind):
    rng = np.random.default_rng(3)
    true = rng.random((60, 2)) < 0.5 if kind == "multilabel" else rng.normal(size=(60, 2))
    logits = true + rng.normal(size=(60, 2))
    found = scoring.pooled(kind, true, logits, np.repeat(np.arange(20), 3), "tested", draws=200)
    for name, value in scoring.scores(kind, true, logits, "tested").items():
        assert found[name]["value"] == pytest.approx(value)
        assert found[name]["low"] < value < found[name]["high"]


def test_a_score_has_brackets_where_it_has_an_interval():
    assert scoring.with_interval({"value": 0.5123, "low": 0.48, "high": 0.5514}) == "0.512 [0.480, 0.551]"
    assert scoring.with_interval({"value": 0.5123, "low": None, "high": None}) == "0.512"
