"""The kernels of `attention_tpu`: what a program of them computes, in the core's own memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Array, Int

from voc2vec_jax.ops import dropout

LEAST = float(np.finfo(np.float32).min)  # not -inf: a row without valid keys would give -inf - (-inf), which is NaN


class Sizes(NamedTuple):
    """What a kernel is specialised on."""

    length: int  # frames of the arrays, t
    heads: int
    width: int  # of a head
    together: int  # heads of a program
    queries: int  # of a program
    keys: int  # of a step of the loop
    rows: int  # that share a bias
    biased: bool
    gated: bool
    drops: dropout.Rule | None

    @property
    def lanes(self) -> int:
        return self.together * self.width

    @property
    def steps(self) -> int:
        return -(-self.length // self.keys)

    @property
    def blocks(self) -> int:
        return -(-self.length // self.queries)

    @property
    def scale(self) -> float:
        return 1.0 if self.drops is None else self.drops.scale


def _dot(x, y, contracted):
    """The product in float32 over one axis of each; the precision is said, since a global one may not exist here."""
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    dimensions = (((contracted[0],), (contracted[1],)), ((), ()))
    return jax.lax.dot_general(x, y, dimensions, precision=precision, preferred_element_type=jnp.float32)


def _iota(shape, axis):
    return jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def _lanes_of(x, head, sizes):
    """x [n, lanes] with the lanes of other heads zeroed."""
    if sizes.together == 1:
        return x
    lane = _iota(x.shape, 1)
    return jnp.where((lane >= head * sizes.width) & (lane < (head + 1) * sizes.width), x, jnp.zeros_like(x))


def _rows_below(x, end):
    """x [n, lanes] with zeros from row `end` on: what a block holds past the end of its array is undefined."""
    return jnp.where(_iota(x.shape, 0) < end, x, jnp.zeros_like(x))


class _Place(NamedTuple):
    """Where a program is: numbers of its row, its first head and its first query; and the row's own numbers."""

    head: Int[Array, ""]
    query: Int[Array, ""]
    frames: Int[Array, ""]
    key: tuple

    @classmethod
    def of(cls, frames, keys, sizes):
        row = pl.program_id(0) * sizes.rows + pl.program_id(3)
        first = pl.program_id(1) * sizes.together, pl.program_id(2) * sizes.queries
        return cls(*first, frames[row], (keys[row, 0], keys[row, 1]))

    def steps(self, sizes):
        """Steps of the loop that hold valid keys; at least one, so that results are finite without any."""
        return jnp.maximum(pl.cdiv(self.frames, np.int32(sizes.keys)), 1)

    def rest(self, sizes):
        """How many queries there are from the first of the program on; it may have more lanes."""
        return sizes.length - self.query


class _Optional(NamedTuple):
    """References to the bias and its gate, or None."""

    bias: object
    gate: object

    @classmethod
    def first_of(cls, refs, sizes):
        """These and the references that follow them."""
        refs = list(refs)
        return cls(refs.pop(0) if sizes.biased else None, refs.pop(0) if sizes.gated else None), refs

    def read(self, head, first, place, sizes):
        """The bias of a head for the keys of a step [keys, queries] and its gate [1, queries]; each may be None."""
        bias = gate = None
        if self.bias is not None:
            bias = self.bias[0, head, _step(first, sizes), :].astype(jnp.float32)
            inside = (_iota(bias.shape, 0) + first < place.frames) & (_iota(bias.shape, 1) < place.rest(sizes))
            bias = jnp.where(inside, bias, 0.0)
        if self.gate is not None:
            gate = self.gate[0, 0, head : head + 1, :].astype(jnp.float32)
            gate = jnp.where(_iota(gate.shape, 1) < place.rest(sizes), gate, 0.0)
        return bias, gate


def _step(first, sizes):
    """The keys of a step, as a slice."""
    return pl.ds(pl.multiple_of(first, sizes.keys), sizes.keys)


def _own(head, sizes):
    """The channels of a head among those of its program."""
    return slice(head * sizes.width, (head + 1) * sizes.width)


def _scores(key, query, bias, gate, first, place):
    """[keys, queries]; `first`: the number of the first key; `query` has the lanes of one head."""
    scores = _dot(key, query, (1, 1))
    if bias is not None:
        scores = scores + (bias if gate is None else bias * gate)
    return jnp.where(_iota(scores.shape, 0) + first < place.frames, scores, LEAST)


def _dropped(arrays, head, first, place, sizes):
    """`arrays` [keys, queries] of a head with zeros for what is dropped, not scaled up."""
    if sizes.drops is None:
        return arrays
    shape = arrays[0].shape
    # What depends on the query alone is a row of lanes, computed once for all keys.
    query = ((place.head + head) * sizes.length + place.query + _iota((1, shape[1]), 1)) * sizes.length + first
    kept = dropout.top(*place.key, query + _iota(shape, 0)) >= sizes.drops.threshold
    return [jnp.where(kept, x, 0.0) for x in arrays]


def forward(frames, keys, query, key, value, *refs, sizes):
    optional, (out, most, total, sums) = _Optional.first_of(refs, sizes)
    place = _Place.of(frames, keys, sizes)
    rows = _rows_below(query[0], place.rest(sizes))
    queries = [_lanes_of(rows, head, sizes) for head in range(sizes.together)]
    sums[...] = jnp.zeros_like(sums)

    def step(j, carry):
        first, new = j * sizes.keys, []
        k, v = (_rows_below(x[0, _step(first, sizes), :], place.frames - first) for x in (key, value))
        for head, (largest, summed) in enumerate(carry):
            bias, gate = optional.read(head, first, place, sizes)
            scores = _scores(k, queries[head], bias, gate, first, place)
            larger = jnp.maximum(largest, scores.max(0, keepdims=True))
            shrunk, weights = jnp.exp(largest - larger), jnp.exp(scores - larger)
            new.append((larger, summed * shrunk + weights.sum(0, keepdims=True)))
            (weights,) = _dropped([weights], head, first, place, sizes)
            own = _own(head, sizes)
            sums[own, :] = sums[own, :] * shrunk + _dot(v[:, own], weights.astype(v.dtype), (0, 0))
        return tuple(new)

    start = jnp.full((1, sizes.queries), LEAST, jnp.float32), jnp.zeros((1, sizes.queries), jnp.float32)
    found = jax.lax.fori_loop(0, place.steps(sizes), step, (start,) * sizes.together)
    for head, (largest, summed) in enumerate(found):
        sums[_own(head, sizes), :] *= sizes.scale / summed
        most[0, 0, head : head + 1, :], total[0, 0, head : head + 1, :] = largest, summed
    out[0] = sums[...].T.astype(out.dtype)


def _by_query(most, total, out, gradient, place, sizes):
    """Of each head what belongs to a query [1, queries]: maximum, scale / sum, inner product of output and gradient."""
    rest = place.rest(sizes)
    inside = _iota((1, sizes.queries), 1) < rest
    products = _rows_below(out[0].astype(jnp.float32) * gradient.astype(jnp.float32), rest).T
    for head in range(sizes.together):
        largest, summed = (x[0, 0, head : head + 1, :] for x in (most, total))
        factor = sizes.scale / jnp.where(inside, summed, 1.0)
        inner = products[_own(head, sizes)].sum(0, keepdims=True) / sizes.scale
        yield jnp.where(inside, largest, 0.0), factor, inner


def backward(frames, keys, query, key, value, *refs, sizes):
    optional, (out, most, total, gradient, to_query, to_key, to_value, *refs) = _Optional.first_of(refs, sizes)
    to_optional, (sums,) = _Optional.first_of(refs, sizes)
    place = _Place.of(frames, keys, sizes)
    rows, pulled = (_rows_below(x[0], place.rest(sizes)) for x in (query, gradient))
    queries, gradients = ([_lanes_of(x, head, sizes) for head in range(sizes.together)] for x in (rows, pulled))
    by_query = list(_by_query(most, total, out, pulled, place, sizes))
    sums[...] = jnp.zeros_like(sums)
    if sizes.biased:
        pl.when(pl.program_id(3) == 0)(lambda: to_optional.bias.__setitem__(..., jnp.zeros_like(to_optional.bias)))
    if sizes.gated:
        to_optional.gate[...] = jnp.zeros_like(to_optional.gate)

    def step(j, _):
        first = j * sizes.keys
        at = _step(first, sizes)
        k, v = (_rows_below(x[0, at, :], place.frames - first) for x in (key, value))
        for_key = for_value = 0.0
        for head, (largest, factor, inner) in enumerate(by_query):
            bias, gate = optional.read(head, first, place, sizes)
            weights = jnp.exp(_scores(k, queries[head], bias, gate, first, place) - largest) * factor
            to_weights = _dot(v, gradients[head], (1, 1))
            used, to_weights = _dropped([weights, to_weights], head, first, place, sizes)
            # ds = w (dw - sum(w dw)), and the sum over keys is the inner product; `factor` holds dropout's scale.
            to_scores = weights * (to_weights - inner)
            if bias is not None:
                to_optional.bias[0, head, at, :] += to_scores if gate is None else to_scores * gate
            if gate is not None:
                to_optional.gate[0, 0, head : head + 1, :] += (to_scores * bias).sum(0, keepdims=True)
            narrow = to_scores.astype(k.dtype)
            for_value += _dot(used.astype(v.dtype), gradients[head], (1, 0))
            for_key += _dot(narrow, queries[head], (1, 0))
            sums[_own(head, sizes), :] += _dot(k[:, _own(head, sizes)], narrow, (0, 0))
        to_key[0, 0, at, :], to_value[0, 0, at, :] = for_key.astype(to_key.dtype), for_value.astype(to_value.dtype)

    def none(j, _):
        for x in (to_key, to_value):
            x[0, 0, _step(j * sizes.keys, sizes), :] = jnp.zeros((sizes.keys, sizes.lanes), x.dtype)

    jax.lax.fori_loop(0, place.steps(sizes), step, None)
    jax.lax.fori_loop(place.steps(sizes), sizes.steps, none, None)
    to_query[0] = sums[...].T.astype(to_query.dtype)
