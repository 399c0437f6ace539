"""The contrastive loss against a gathered list of negatives, and the other terms against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax.ops import losses, masking


def gathered(logits, same_code, drawn, valid):
    """The definition: cross-entropy over [positive, negatives], negatives with the positive's code at -inf."""
    loss, correct, equal = 0.0, 0, 0
    b, m, _ = logits.shape
    for row in range(b):
        for i in range(m):
            if not valid[row, i]:
                continue
            negatives = np.array([-np.inf if same_code[row, i, j] else logits[row, i, j] for j in drawn[row, i]])
            scores = np.concatenate([[logits[row, i, i]], negatives])
            loss += np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[0]
            correct += scores.argmax() == 0 and scores.argmin() != 0
            equal += np.isinf(negatives).sum()
    return loss, correct, equal


@pytest.mark.parametrize("alike, levels", [(0.0, None), (0.3, None), (1.0, None), (0.0, 3), (0.3, 3)])
def test_contrastive_is_the_gathered_cross_entropy(alike, levels):
    """With few levels of the logits, ties too: the positive wins one for the largest, and not where all are equal."""
    rng = np.random.default_rng(0)
    b, m, n = 3, 12, 20
    count = np.array([12, 7, 2])
    valid = np.arange(m) < count[:, None]
    logits = rng.normal(0, 4, (b, m, m)) if levels is None else rng.integers(0, levels, (b, m, m))
    logits = logits.astype(np.float32)
    code = np.where(rng.random((b, m)) < alike, 0, np.arange(m))
    same = code[:, :, None] == code[:, None]
    drawn = np.asarray(masking.negatives(jax.random.split(jax.random.key(0), b), jnp.asarray(count), m, n))
    counts = masking.draw_counts(jnp.asarray(drawn))
    sums = jax.jit(losses.contrastive)(jnp.asarray(logits), jnp.asarray(same), counts, jnp.asarray(valid))
    loss, correct, equal = gathered(logits.astype(np.float64), same, drawn, valid)
    assert float(sums["loss"].sum()) == pytest.approx(loss, rel=1e-5, abs=1e-5)
    assert float(sums["correct"].sum()) == correct
    assert float(sums["equal"].sum()) == equal
    assert float(sums["count"].sum()) == valid.sum()
    assert float(sums["drawn"].sum()) == n * valid.sum()


def test_all_negatives_equal_is_the_signature_of_collapse():
    """Loss 0 and accuracy 1, as in the reference."""
    m = 6
    counts = jnp.asarray(2 * (1 - np.eye(m, dtype=np.int32)))[None]
    sums = losses.contrastive(jnp.zeros((1, m, m)), jnp.ones((1, m, m), bool), counts, jnp.ones((1, m), bool))
    assert sums["loss"].tolist() == [0.0]
    assert sums["correct"].tolist() == sums["count"].tolist() == [m]


def test_gradient_is_finite_where_nothing_is_drawn():
    grad = jax.grad(
        lambda x: losses.contrastive(
            x, jnp.zeros(x.shape, bool), jnp.zeros(x.shape, jnp.int32), jnp.zeros(x.shape[:2], bool)
        )["loss"].sum()
    )(jnp.zeros((1, 4, 4)))
    assert np.array_equal(grad, np.zeros((1, 4, 4)))


def test_unit_is_torchs_cosine_and_smooth_at_zero():
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    assert losses.unit(x) == pytest.approx(np.array([[0.6, 0.8], [0.0, 0.0]]))
    grad = jax.grad(lambda x: losses.unit(x).sum())(x)
    assert np.isfinite(grad).all()


def test_perplexity_counts_the_choices():
    one = jnp.zeros((1, 2, 5)).at[:, :, 3].set(1.0)
    even = jnp.full((1, 2, 5), 0.2)
    assert losses.perplexity(one) == pytest.approx(2.0, rel=1e-5)
    assert losses.perplexity(even) == pytest.approx(10.0, rel=1e-5)


def test_feature_penalty_sees_valid_frames_only():
    features = jnp.asarray([[[[1.0, 2.0], [9.0, 9.0]], [[3.0, 4.0], [5.0, 6.0]]]])
    valid = jnp.asarray([[[True, False], [True, True]]])
    assert losses.feature_penalty(features, valid) == pytest.approx((1 + 4 + 9 + 16 + 25 + 36) / 6)
    assert losses.feature_penalty(features, jnp.zeros_like(valid)) == pytest.approx(0)


def test_group_mean_of_nothing_is_zero():
    x = jnp.ones((2, 3, 4))
    valid = jnp.asarray([[True, True, False], [False] * 3])
    assert losses.group_mean(x.at[0, 2].set(99.0), valid).tolist() == [[1.0] * 4, [0.0] * 4]


def test_rows_without_weight_count_for_nothing_whatever_they_hold():
    """Rows without a clip may hold NaN, which times 0 is NaN; a row of weight 2 counts twice."""
    logits = jnp.asarray([[1.0, 0.0], [jnp.nan, 0.0], [0.0, 0.0]])
    given = jnp.asarray([0, 1, 1]), jnp.asarray([1.0, 0.0, 2.0])
    loss, weight = losses.cross_entropy(logits, *given)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-1)) + 2 * np.log(2), rel=1e-6)
    assert float(weight) == 3
    grad = jax.grad(lambda logits: losses.cross_entropy(logits, *given)[0])(logits)
    assert np.isfinite(np.asarray(grad)[[0, 2]]).all() and float(grad[2, 0]) == pytest.approx(1.0)
