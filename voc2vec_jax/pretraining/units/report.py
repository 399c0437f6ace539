"""The quality of units: how evenly clusters are used, and what they tell about labels where a set has some."""

import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib import figure
from matplotlib.backends import backend_agg

from voc2vec_jax.datasets import records
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import files

SHUFFLES = 5
FIELDS = ("frames", "used", "perplexity", "commonest", "run_ms", "labels", "label_bits", "information_bits")
FIELDS += ("by_chance_bits", "share_of_labels", "purity", "label_purity")


def quality(prepared: records.PreparedSet, found: unit_store.Units) -> dict[str, Any]:
    """Cluster use of one set; with labels also purity and mutual information, frame by frame. Entropies in bits.

    `used`: number of clusters in use; `perplexity`: of their use; `commonest`: share of the most frequent unit;
    `run_ms`: mean duration of a run of equal units; `information_bits`: mutual information of unit and label;
    `by_chance_bits`: the same after the labels were shuffled over the records; `share_of_labels`:
    (information - chance) / (entropy of the labels - chance); `purity`: share of frames whose label is the most
    frequent one of their cluster; `label_purity`: share of frames whose unit is the most frequent one of their label.
    """
    flat = np.asarray(found.flat)
    counts = np.bincount(flat, minlength=found.clusters)
    total = max(len(flat), 1)
    lengths = found.ends - found.begins
    # A run of equal units ends at a change or at the end of a record.
    #     5 5 2 | 2 2 | 7      one change within records (5 2), three ends of records: four runs
    # inner is False at each record's first frame, where a change says nothing.
    inner = np.ones(len(flat), bool)
    inner[found.begins[lengths > 0]] = False
    changes = int((flat[1:] != flat[:-1])[inner[1:]].sum()) + int((lengths > 0).sum())
    row = {
        "set": prepared.name,
        "frames": len(flat),
        "clusters": found.clusters,
        "used": int((counts > 0).sum()),
        "perplexity": float(2 ** entropy(counts)),
        "commonest": float(counts.max(initial=0) / total),
        "run_ms": float(1000 * len(flat) / max(changes, 1) / found.rate_hz),
        "labels": len(prepared.labels),
    }
    if (prepared.label >= 0).any():
        row |= _of_labels(joint(prepared.label, found), prepared.label, found)
    return row


def _of_labels(
    together: Int[np.ndarray, "l k"], label: Int[np.ndarray, "n"], found: unit_store.Units
) -> dict[str, float]:
    draw = np.random.default_rng(0)
    labelled = label >= 0
    # Chance is not zero: with more clusters more of any labelling is told by accident.
    shuffled = []
    for _ in range(SHUFFLES):
        other = label.copy()
        # Whole records: frames of one record are alike, and shuffling frames would make chance look smaller than it is.
        other[labelled] = draw.permutation(label[labelled])
        shuffled.append(information(joint(other, found)))
    total = max(together.sum(), 1)
    bits, chance, most = information(together), float(np.mean(shuffled)), entropy(together.sum(1))
    return {
        "label_bits": most,
        "information_bits": bits,
        "by_chance_bits": chance,
        "share_of_labels": (bits - chance) / (most - chance) if most > chance else 0.0,
        "purity": float(together.max(0).sum() / total),
        "label_purity": float(together.max(1).sum() / total),
    }


def joint(label: Int[np.ndarray, "n"], found: unit_store.Units) -> Int[np.ndarray, "l k"]:
    """Frames of each label (rows) and cluster (columns); records without a label are left out."""
    of_frame = np.repeat(label, found.ends - found.begins)
    real = of_frame >= 0
    # Cell l * k + u of the table, so that one bincount counts all pairs.
    cells = of_frame[real] * found.clusters + np.asarray(found.flat)[real]
    return np.bincount(cells, minlength=(label.max() + 1) * found.clusters).reshape(-1, found.clusters)


def entropy(counts: Int[np.ndarray, "*k"]) -> float:
    """In bits."""
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log2(share)).sum())


def information(together: Int[np.ndarray, "l k"]) -> float:
    """Mutual information of rows and columns of a table of counts, in bits."""
    # I(label; unit) = H(unit) + H(label) - H(label, unit)
    return entropy(together.sum(0)) + entropy(together.sum(1)) - entropy(together)


def table(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The rows as text under a header."""
    shown = [("set", *FIELDS)]
    for row in rows:
        cells = (row.get(name, "-") for name in FIELDS)
        shown.append((row["set"], *(f"{cell:.4g}" if isinstance(cell, float) else f"{cell}" for cell in cells)))
    return shown


def draw(path: pathlib.Path, name: str, pairs: Sequence[tuple[records.PreparedSet, unit_store.Units]]) -> None:
    """A PNG of cluster use in every set, and of the labels of each cluster where a set has labels."""
    labelled = [pair for pair in pairs if (pair[0].label >= 0).any()]
    sheet = figure.Figure(figsize=(7 + 7 * len(labelled), 5), layout="constrained")
    backend_agg.FigureCanvasAgg(sheet)
    panels = sheet.subplots(1, 1 + len(labelled), squeeze=False)[0]
    for prepared, found in pairs:
        counts = np.sort(np.bincount(np.asarray(found.flat), minlength=found.clusters))[::-1]
        panels[0].plot(
            # A log axis has no zero: half a frame stands for clusters that no frame is in.
            np.arange(1, len(counts) + 1),
            np.maximum(counts, 0.5) / max(counts.sum(), 1),
            label=prepared.name,
        )
    panels[0].set(title=f"{name}: use of clusters", xlabel="clusters, from the commonest", ylabel="share of frames")
    panels[0].set_yscale("log")
    panels[0].legend(fontsize=8, frameon=False)
    panels[0].grid(alpha=0.25, linewidth=0.6)
    for panel, (prepared, found) in zip(panels[1:], labelled):
        _heat(panel, shares(joint(prepared.label, found)), prepared)
    image = io.BytesIO()
    sheet.savefig(image, dpi=100, format="png")
    files.write_atomic(path, image.getvalue())


def shares(together: Int[np.ndarray, "l k"]) -> Float[np.ndarray, "l k"]:
    """The share of each label in each cluster; clusters are ordered by their most frequent label."""
    share = together / np.maximum(together.sum(0, keepdims=True), 1)
    # By label, then by falling share: pure clusters make a staircase, mixed ones a smear.
    return share[:, np.lexsort((-share.max(0), share.argmax(0)))]


def _heat(panel: Any, share: Float[np.ndarray, "l k"], prepared: records.PreparedSet) -> None:
    panel.imshow(share, aspect="auto", interpolation="nearest", cmap="magma_r", vmin=0, vmax=max(share.max(), 1e-9))
    panel.set(title=f"{prepared.name}: labels of each cluster (share of its frames)", xlabel="clusters, by label")
    panel.set_yticks(range(len(share)), [str(label) for label in prepared.labels[: len(share)]], fontsize=8)
