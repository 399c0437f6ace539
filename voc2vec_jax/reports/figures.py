"""The pictures of a report: confusion matrices, learning curves, recalls and the map of embeddings (figure 1)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import threadpoolctl
from jaxtyping import Float
from matplotlib import axes, figure, lines

from voc2vec_jax import errors
from voc2vec_jax.finetuning import scoring
from voc2vec_jax.ops import metrics
from voc2vec_jax.reports import details, drawing
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text

TSNE_CLIPS = 2000


def confusion(run: report_runs.ReportedRun, name: str, formats: Sequence[str] = ()) -> drawing.Figure:
    """Clips of all test folds by true and predicted class; the colour is the share of the true class."""
    matrix, n = run.confusion, len(run.labels)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    names = [drawing.short(label) for label in run.labels]
    beside = 0.085 * max(map(len, names))  # inches, of the classes' names
    side = n * (0.46 if n <= 8 else 0.38)
    size = max(min(1.0 + beside + side, 26), drawing.WIDTH), min(1.5 + 0.7 * beside + side, 24)
    title = f"{run.title}: {report_tables.mark(run)}"

    def draw(sheet: figure.Figure, theme: drawing.Theme) -> None:
        panel = sheet.subplots()
        panel.imshow(share, cmap=theme.shares, vmin=0, vmax=1)
        for i, j in np.argwhere(matrix > 0) if n <= 40 else ():
            colour = theme.over if share[i, j] > theme.turn else theme.ink
            panel.text(j, i, str(matrix[i, j]), ha="center", va="center", color=colour, fontsize=9)
        panel.set_xticks(range(n), names, rotation=40, ha="right", rotation_mode="anchor")
        panel.set_yticks(range(n), names)
        panel.set(xlabel="predicted", ylabel="true")
        panel.spines[:].set(visible=True, color=theme.line)
        drawing.headed(sheet, run.title, report_tables.mark(run), _notes(run), theme)

    text = f"Confusion matrix of {title}: {int(np.trace(matrix))} of {int(matrix.sum())} clips are right."
    shown = f"Confusion, {title}. Clips; the colour is the share of the true class."
    return drawing.drawn(name, shown, text, size, draw, formats)


def _notes(run: report_runs.ReportedRun) -> list[str]:
    """What must stand in every picture of a run: that it is incomplete, and that its clips leak."""
    incomplete = [] if run.complete else [f"{report_text.DAGGER} incomplete, {run.progress} folds"]
    return [*incomplete, *_leaks([run])]


def _leaks(runs: Sequence[report_runs.ReportedRun]) -> list[str]:
    """The leaks of some runs, each once and without what it means for the scores."""
    texts = (text.partition(":")[0] for run in runs for text in run.leaks_in_words)
    return [f"{report_text.DOUBLE_DAGGER} {text}" for text in dict.fromkeys(texts)]


def recalls(
    runs: Sequence[report_runs.ReportedRun], places: Mapping[str, int], name: str, formats: Sequence[str]
) -> drawing.Figure:
    """Recall of each class over all test folds, the systems of one data set beside each other."""
    labels = list(dict.fromkeys(label for run in runs for label in run.labels))
    step = 0.7 / max(len(runs), 1)
    height = min(1.9 + len(labels) * max(0.36, 0.13 * len(runs)) + 0.2 * ((len(runs) + 1) // 2), 30)
    title = f"{runs[0].title}: recall of each class"

    def draw(sheet: figure.Figure, theme: drawing.Theme) -> None:
        panel = sheet.subplots()
        for at, run in enumerate(runs):
            values = dict(zip(run.labels, metrics.recalls(run.confusion)))
            rows = np.arange(len(labels)) + (at - (len(runs) - 1) / 2) * step
            colour, marker = drawing.style(places[run.name], theme)
            folds = "" if run.complete else f" {run.progress} folds"
            label = f"{drawing.short(run.name)}{report_tables.marks(run)}{folds}"
            recall = [values.get(label, np.nan) for label in labels]
            panel.plot(recall, rows, marker, color=colour, label=label, markersize=7, markeredgecolor=theme.paper)
        panel.set_yticks(range(len(labels)), [drawing.short(label) for label in labels])
        panel.set(xlim=(-0.03, 1.03), ylim=(len(labels) - 0.5, -0.5), xlabel="recall")
        panel.hlines(np.arange(1, len(labels)) - 0.5, -0.03, 1.03, color=theme.line, linewidth=0.8)
        panel.grid(axis="x", alpha=0.25, linewidth=0.6)
        sheet.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        drawing.headed(sheet, runs[0].title, "recall of each class", _leaks(runs), theme)

    text = f"{title}, for {', '.join(report_text.clean(run.name) for run in runs)}; the table holds the numbers."
    return drawing.drawn(name, title, text, (drawing.WIDTH, height), draw, formats)


def curves(
    run: report_runs.ReportedRun, rows: Sequence[Mapping[str, Any]], name: str, formats: Sequence[str]
) -> drawing.Figure:
    """Losses and validation scores by epoch: a thin line for each fold, a thick one for their mean."""
    title = f"{run.title}: {report_tables.mark(run)}"
    judged = "reported fold" if run.protocol == "paper" else "validation part"

    def draw(sheet: figure.Figure, theme: drawing.Theme) -> None:
        loss, score = sheet.subplots(2, 1, sharex=True)
        _folds(loss, rows, "train", "loss", theme.palette[0], "training")
        _folds(loss, rows, "validation", "loss", theme.palette[1], judged)
        for place, (metric, label) in enumerate(scoring.KINDS[run.kind].titles.items()):
            _folds(score, rows, "validation", metric, theme.palette[place], label, thin=place == 0)
        _best(score, run, rows, theme)
        loss.set(ylabel="cross-entropy" if run.kind == "classes" else "loss")
        score.set(ylabel=f"score, {judged}", xlabel="epoch")
        for panel in (loss, score):
            _epoch_axis(panel)
        drawing.headed(sheet, run.title, report_tables.mark(run), _notes(run), theme)

    text = f"Learning curves of {title}, {len({row['fold'] for row in rows})} folds."
    return drawing.drawn(name, f"Learning curves, {title}", text, (drawing.WIDTH, 5.0), draw, formats)


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


def _best(
    panel: axes.Axes, run: report_runs.ReportedRun, rows: Sequence[Mapping], theme: drawing.Theme = drawing.LIGHT
) -> None:
    """A dot at the epoch whose model each fold kept."""
    name, title = next(iter(scoring.KINDS[run.kind].titles.items()))
    values = {(row["fold"], row["epoch"]): row.get(name) for row in rows if row.get("split") == "validation"}
    chosen = [(fold.best_epoch, values.get((fold.fold, fold.best_epoch))) for fold in run.folds]
    points = [(epoch, value) for epoch, value in chosen if isinstance(value, (int, float))]
    if points:
        label = f"kept epoch ({title})"
        look = {"color": theme.palette[0], "markersize": 4.5, "markeredgecolor": theme.paper}
        panel.plot(*zip(*points), "o", label=label, **look)


def _epoch_axis(panel: axes.Axes) -> None:
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
) -> drawing.Figure:
    """Figure 1: the first fold's test clips of one data set, a panel for each model, one palette and one legend."""
    labels = list(dict.fromkeys(label for run, _ in found for label in run.labels))
    points = [_points(embeddings) for _, embeddings in found]
    across = min(len(found), 2 if len(found) in (2, 4) else 3)
    down = math.ceil(len(found) / across)
    width = max(2.4 * across, drawing.WIDTH)
    columns = max(1, int(width / (0.45 + 0.08 * max(len(drawing.short(label)) for label in labels))))
    size = width, (2.7 if across > 1 else 4.2) * down + 0.6 + 0.21 * math.ceil(len(labels) / columns)
    heading = f"t-SNE of fold {found[0][1].fold}"
    title = f"{found[0][0].title}: {heading}"

    def draw(sheet: figure.Figure, theme: drawing.Theme) -> None:
        panels = sheet.subplots(down, across, squeeze=False).ravel()
        drawing.headed(sheet, found[0][0].title, heading, (), theme)
        for panel, (run, embeddings), spots in zip(panels, found, points):
            _map(panel, run, embeddings, spots, labels, theme)
        for panel in panels[len(found) :]:
            panel.set_visible(False)
        handles = [_handle(at, label, theme) for at, label in enumerate(labels)]
        sheet.legend(handles=handles, loc="outside lower center", frameon=False, ncols=columns, fontsize=9)

    text = f"{title}, pooled vectors of the test clips: {', '.join(report_text.clean(run.name) for run, _ in found)}."
    return drawing.drawn(name, title, text, size, draw, formats)


def _handle(place: int, label: str, theme: drawing.Theme) -> lines.Line2D:
    colour, marker = drawing.style(place, theme)
    return lines.Line2D([], [], linestyle="", marker=marker, color=colour, label=drawing.short(label), markersize=6)


def _kept(found: details.Embeddings) -> np.ndarray:
    """The clips that the map shows: all, or as many as can be told apart."""
    return np.sort(np.random.default_rng(0).permutation(len(found.labels))[:TSNE_CLIPS])


def _points(found: details.Embeddings) -> Float[np.ndarray, "n 2"] | str:
    """Places of the kept clips, or why there is no map."""
    try:
        return flatten(found.vectors[_kept(found)])
    except errors.InputError as error:
        return str(error)


def _map(
    panel: axes.Axes,
    run: report_runs.ReportedRun,
    found: details.Embeddings,
    points: Float[np.ndarray, "n 2"] | str,
    labels: Sequence[str],
    theme: drawing.Theme,
) -> None:
    panel.set(xticks=[], yticks=[])
    folds = "" if run.complete else f", {run.progress} folds"
    panel.set_title(f"{drawing.short(run.name)}{report_tables.marks(run)}{folds}")
    panel.spines[:].set(visible=True, color=theme.line)
    if isinstance(points, str):
        look = {"ha": "center", "va": "center", "color": theme.soft, "wrap": True}
        panel.text(0.5, 0.5, points, transform=panel.transAxes, **look)
        return
    classes = found.labels[_kept(found)]
    for own in np.unique(classes):
        colour, marker = drawing.style(labels.index(run.labels[own]), theme)
        look = {"s": 22 + 16 * (marker in "PX*"), "edgecolors": theme.paper, "linewidths": 0.4, "alpha": 0.9}
        panel.scatter(*points[classes == own].T, color=colour, marker=marker, **look)
