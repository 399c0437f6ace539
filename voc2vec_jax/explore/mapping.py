"""The map: vectors in a plane, by t-SNE or UMAP.

n = clips, d = width, m = clips that are drawn.
"""

import importlib
import warnings

import numpy as np
import threadpoolctl
from jaxtyping import Float, Float32, Int64

from voc2vec_jax import errors
from voc2vec_jax.reports import figures
from voc2vec_jax.runs import extras

TITLES = {"tsne": "t-SNE", "umap": "UMAP"}
MOST = 4000  # clips that are drawn: t-SNE of more takes minutes, and a page of more is slow


def check(how: str) -> None:
    """InputError for a map whose package is not installed."""
    if how == "umap":
        _umap()


def drawn(n: int, seed: int) -> Int64[np.ndarray, "m"]:
    """The rows that are drawn: all, or `MOST` at random."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:MOST])


def flat(vectors: Float[np.ndarray, "n d"], how: str, seed: int) -> Float32[np.ndarray, "n 2"]:
    """The places of vectors, each axis from 0 to 1; InputError for fewer than five, or when all are equal."""
    if len(vectors) < 5 or not np.ptp(vectors, axis=0).any():
        raise errors.InputError(f"no map of these {len(vectors)} clips: it needs five, and vectors that differ")
    points = figures.flatten(vectors, seed) if how == "tsne" else _by_umap(vectors, seed)
    low, high = points.min(0), points.max(0)
    return ((points - low) / np.where(high > low, high - low, 1)).astype(np.float32)


def _umap():
    try:
        return importlib.import_module("umap")
    except ImportError:
        raise errors.InputError(
            f"--map=umap needs a package that is not installed: {extras.command('umap')}, or leave it out for "
            "a map by t-SNE"
        ) from None


def _by_umap(vectors: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n 2"]:
    """umap-learn's UMAP (McInnes et al. 2018) with its defaults, seeded and in one thread."""
    with warnings.catch_warnings(), threadpoolctl.threadpool_limits(1):
        warnings.simplefilter("ignore")  # of numba, which are nobody's fault
        model = _umap().UMAP(n_neighbors=min(15, len(vectors) - 1), random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(vectors.astype(np.float32)))
