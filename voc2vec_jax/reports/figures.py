"""The pictures of a report: confusion matrices, learning curves, recalls and the map of embeddings (figure 1)."""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import threadpoolctl
from jaxtyping import Float
from matplotlib import axes, colors, figure, lines
from matplotlib.backends import backend_agg

from voc2vec_jax import errors
from voc2vec_jax.finetuning import scoring
from voc2vec_jax.ops import metrics
from voc2vec_jax.reports import details
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text

FORMATS = ("png", "pdf", "svg")
# The first three are the pre-training curves' colours; all eight differ in lightness too.
PALETTE = ("#1f6fb4", "#d1495b", "#3a9d6e", "#e0a026", "#7b52ab", "#5bb8d4", "#8c5a3c", "#3d4451")
MARKERS = "osD^vPX*"
_COUNTS = colors.LinearSegmentedColormap.from_list("counts", ["#ffffff", "#8db8dc", PALETTE[0], "#0d3a63"])
_STYLE = {
    "text.parse_math": False,  # a `$` in a class name is a dollar
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "voc2vec_jax",
}
_NAME_LENGTH = 28
TSNE_CLIPS = 2000


class Figure(NamedTuple):
    """A picture: its bytes by format (always "png"), and the alternative text `text` for screen readers."""

    name: str  # stem of its files
    title: str
    text: str
    images: Mapping[str, bytes]


def style(place: int) -> tuple[str, str]:
    """Colour and marker of the class or system at `place`: different for the first 64."""
    return PALETTE[place % len(PALETTE)], MARKERS[(place + place // len(PALETTE)) % len(MARKERS)]


def short(name: str) -> str:
    """A name cut to fit beside an axis."""
    name = report_text.clean(name)
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"


@contextlib.contextmanager
def _sheet(width: float, height: float) -> Iterator[figure.Figure]:
    """An empty figure in the report's style; letters missing from the font become boxes."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        sheet = figure.Figure(figsize=(width, height), layout="constrained")
        backend_agg.FigureCanvasAgg(sheet)
        yield sheet


def _finish(sheet: figure.Figure, name: str, title: str, text: str, formats: Sequence[str]) -> Figure:
    """The picture's bytes, which depend on the runs only: no dates are stored."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}
    images = {}
    for kind in dict.fromkeys(("png", *formats)):
        data = io.BytesIO()
        sheet.savefig(data, format=kind, dpi=130, metadata=dates[kind])
        images[kind] = data.getvalue()
        sheet.set_layout_engine("none")  # it is laid out now, for every format
    return Figure(name, title, text, images)


def confusion(run: report_runs.ReportedRun, name: str, formats: Sequence[str] = ()) -> Figure:
    """Clips of all test folds by true and predicted class; the colour is the share of the true class."""
    matrix, n = run.confusion, len(run.labels)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = 2.6 + 0.42 * n
    system = report_tables.mark(run.name, complete=run.complete)
    title = f"{run.title}: {system}"
    with _sheet(min(size + 1.2, 26), min(size, 24)) as sheet:
        panel = sheet.subplots()
        image = panel.imshow(share, cmap=_COUNTS, vmin=0, vmax=1)
        for i, j in np.argwhere(matrix > 0) if n <= 40 else ():
            colour = "white" if share[i, j] > 0.45 else "0.15"
            panel.text(j, i, str(matrix[i, j]), ha="center", va="center", color=colour, fontsize=8)
        names = [short(label) for label in run.labels]
        panel.set_xticks(range(n), names, rotation=40, ha="right", rotation_mode="anchor")
        panel.set_yticks(range(n), names)
        # A picture of few classes is narrower than a long title.
        heading = f"{short(run.title)}\n{short(system)}" if n < 6 else title
        panel.set(xlabel="predicted", ylabel="true", title=_fold_line(heading, run))
        panel.spines[:].set(visible=True, color="0.8")
        sheet.colorbar(image, ax=panel, shrink=0.8, label="share of the true class")
        text = f"Confusion matrix of {title}: {int(np.trace(matrix))} of {int(matrix.sum())} clips are right."
        return _finish(sheet, name, f"Confusion, {title}", text, formats)


def _fold_line(title: str, run: report_runs.ReportedRun) -> str:
    """The heading, with a second line for an incomplete run."""
    return title if run.complete else f"{title}\nincomplete, {run.progress} folds"


def recalls(
    runs: Sequence[report_runs.ReportedRun], places: Mapping[str, int], name: str, formats: Sequence[str]
) -> Figure:
    """Recall of each class over all test folds, the systems of one data set beside each other."""
    labels = list(dict.fromkeys(label for run in runs for label in run.labels))
    step = 0.7 / max(len(runs), 1)
    height = min(1.6 + len(labels) * max(0.34, 0.12 * len(runs)), 30)
    title = f"{runs[0].title}: recall of each class"
    with _sheet(8.6, height) as sheet:
        panel = sheet.subplots()
        for at, run in enumerate(runs):
            values = dict(zip(run.labels, metrics.recalls(run.confusion)))
            rows = np.arange(len(labels)) + (at - (len(runs) - 1) / 2) * step
            colour, marker = style(places[run.name])
            label = f"{short(run.name)}{'' if run.complete else f' {report_text.DAGGER} {run.progress} folds'}"
            recall = [values.get(label, np.nan) for label in labels]
            panel.plot(recall, rows, marker, color=colour, label=label, markersize=6, markeredgecolor="white")
        panel.set_yticks(range(len(labels)), [short(label) for label in labels])
        panel.set(xlim=(-0.02, 1.02), ylim=(len(labels) - 0.5, -0.5), xlabel="recall", title=title)
        panel.hlines(np.arange(1, len(labels)) - 0.5, -0.02, 1.02, color="0.88", linewidth=0.8)
        panel.grid(axis="x", alpha=0.25, linewidth=0.6)
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        text = f"{title}, for {', '.join(report_text.clean(run.name) for run in runs)}; the table holds the numbers."
        return _finish(sheet, name, title, text, formats)


def curves(
    run: report_runs.ReportedRun, rows: Sequence[Mapping[str, Any]], name: str, formats: Sequence[str]
) -> Figure:
    """Losses and validation scores by epoch: a thin line for each fold, a thick one for their mean."""
    title = f"{run.title}: {report_tables.mark(run.name, complete=run.complete)}"
    judged = "reported fold" if run.protocol == "paper" else "validation part"
    with _sheet(10.0, 3.6) as sheet:
        loss, score = sheet.subplots(1, 2)
        _folds(loss, rows, "train", "loss", PALETTE[0], "training")
        _folds(loss, rows, "validation", "loss", PALETTE[1], judged)
        titles = scoring.KINDS[run.kind].titles
        for place, (metric, label) in enumerate(titles.items()):
            _folds(score, rows, "validation", metric, PALETTE[place], label, thin=place == 0)
        _best(score, run, rows)
        loss.set(title="loss", ylabel="cross-entropy" if run.kind == "classes" else "")
        score.set(title=f"scores on the {judged}")
        for panel in (loss, score):
            _epoch_axis(panel)
        sheet.suptitle(_fold_line(title, run).replace("\n", ", "), fontsize=11)
        text = f"Learning curves of {title}, {len({row['fold'] for row in rows})} folds."
        return _finish(sheet, name, f"Learning curves, {title}", text, formats)


def _folds(
    panel: axes.Axes, rows: Sequence[Mapping], split: str, key: str, colour: str, label: str, *, thin: bool = True
) -> None:
    """A line for each fold; their mean ends where fewer than half of the folds continue."""
    found: dict[int, dict[int, float]] = {}
    for row in rows:
        value = row.get(key)
        if row.get("split") == split and isinstance(value, (int, float)) and math.isfinite(value):
            found.setdefault(row["fold"], {})[row["epoch"]] = value
    by_epoch: dict[int, list[float]] = {}
    for values in found.values():
        epochs = sorted(values)
        for epoch in epochs:
            by_epoch.setdefault(epoch, []).append(values[epoch])
        if thin:
            panel.plot(epochs, [values[epoch] for epoch in epochs], color=colour, linewidth=0.6, alpha=0.35)
    kept = sorted(epoch for epoch, values in by_epoch.items() if 2 * len(values) >= len(found))
    if kept:
        mark = "o-" if len(kept) == 1 else "-"
        panel.plot(kept, [np.mean(by_epoch[epoch]) for epoch in kept], mark, color=colour, linewidth=2, label=label)


def _best(panel: axes.Axes, run: report_runs.ReportedRun, rows: Sequence[Mapping]) -> None:
    """A dot at the epoch whose model each fold kept."""
    name, title = next(iter(scoring.KINDS[run.kind].titles.items()))
    values = {(row["fold"], row["epoch"]): row.get(name) for row in rows if row.get("split") == "validation"}
    chosen = [(fold.best_epoch, values.get((fold.fold, fold.best_epoch))) for fold in run.folds]
    points = [(epoch, value) for epoch, value in chosen if isinstance(value, (int, float))]
    if points:
        label = f"kept epoch ({title})"
        panel.plot(*zip(*points), "o", color=PALETTE[0], markersize=4.5, markeredgecolor="white", label=label)


def _epoch_axis(panel: axes.Axes) -> None:
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(8, integer=True))
    panel.grid(alpha=0.25, linewidth=0.6)
    if panel.lines:
        panel.legend(frameon=False, fontsize=8)
    else:
        panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, ha="center", va="center", color="0.5")
        panel.set_yticks([])


def flatten(vectors: Float[np.ndarray, "n d"], seed: int = 0) -> Float[np.ndarray, "n 2"]:
    """scikit-learn's t-SNE, seeded, and in one thread so that the map is the same on any number of cores.

    InputError for fewer than five clips, or when all vectors are equal.
    """
    from sklearn import manifold  # imported here because it takes a second

    n, d = vectors.shape
    if n < 5 or not np.ptp(vectors, axis=0).any():
        raise errors.InputError(f"no map of these {n} clips: t-SNE needs five, and vectors that differ")
    scaled = (vectors - vectors.mean(0)) / np.abs(vectors - vectors.mean(0)).max()
    start = "pca" if d > 1 else "random"
    tsne = manifold.TSNE(perplexity=min(30.0, (n - 1) / 3), init=start, learning_rate="auto", random_state=seed)
    with threadpoolctl.threadpool_limits(1):
        return tsne.fit_transform(scaled.astype(np.float32)).astype(np.float32)


def tsne(
    found: Sequence[tuple[report_runs.ReportedRun, details.Embeddings]],
    name: str,
    formats: Sequence[str],
) -> Figure:
    """Figure 1: the first fold's test clips of one data set, a panel for each model, one palette and one legend."""
    labels = list(dict.fromkeys(label for run, _ in found for label in run.labels))
    across = len(found) if len(found) <= 4 else 3 if len(found) <= 6 else 4
    down = math.ceil(len(found) / across)
    title = f"{found[0][0].title}: t-SNE of fold {found[0][1].fold}"
    with _sheet(3.4 * across + 1.9, 3.6 * down + 0.4) as sheet:
        panels = sheet.subplots(down, across, squeeze=False).ravel()
        for panel, (run, embeddings) in zip(panels, found):
            _map(panel, run, embeddings, labels)
        for panel in panels[len(found) :]:
            panel.set_visible(False)
        handles = [_handle(at, label) for at, label in enumerate(labels)]
        sheet.legend(
            handles=handles, loc="outside right center", frameon=False, title="class", ncols=1 + len(labels) // 25
        )
        sheet.suptitle(title, fontsize=11)
        text = (
            f"{title}, pooled vectors of the test clips: {', '.join(report_text.clean(run.name) for run, _ in found)}."
        )
        return _finish(sheet, name, title, text, formats)


def _handle(place: int, label: str) -> lines.Line2D:
    colour, marker = style(place)
    return lines.Line2D([], [], linestyle="", marker=marker, color=colour, label=short(label), markersize=6)


def _map(panel: axes.Axes, run: report_runs.ReportedRun, found: details.Embeddings, labels: Sequence[str]) -> None:
    kept = np.sort(np.random.default_rng(0).permutation(len(found.labels))[:TSNE_CLIPS])
    panel.set(xticks=[], yticks=[], title=_fold_line(short(run.name), run))
    panel.spines[:].set_visible(True)
    panel.spines[:].set_color("0.8")
    try:
        points = flatten(found.vectors[kept])
    except errors.InputError as error:
        panel.text(0.5, 0.5, str(error), transform=panel.transAxes, ha="center", va="center", color="0.4", wrap=True)
        return
    classes = found.labels[kept]
    for own in np.unique(classes):
        colour, marker = style(labels.index(run.labels[own]))
        spots = points[classes == own]
        panel.scatter(
            *spots.T,
            s=20 + 16 * (marker in "PX*"),
            color=colour,
            marker=marker,
            edgecolors="white",
            linewidths=0.4,
            alpha=0.9,
        )
