"""The curves of a pre-training run as one PNG."""

import functools
import io
import pathlib
from concurrent import futures

import numpy as np
from jaxtyping import Float64
from matplotlib import axes, figure, ticker
from matplotlib.backends import backend_agg

from voc2vec_jax import errors
from voc2vec_jax.models import display
from voc2vec_jax.runs import files, series

_TRAIN, _VALID, _SECOND = "#1f6fb4", "#d1495b", "#3a9d6e"
_SMOOTHED_FROM = 30  # values
_GAP = {"facecolor": "0.9", "edgecolor": "0.75", "hatch": "///", "linewidth": 0, "zorder": 0}
_CHANCE = {"color": "0.45", "linewidth": 1.0, "linestyle": (0, (5, 3))}


def curves(history: series.History, picture: str | pathlib.Path, view: display.View, *, title: str = "") -> None:
    """Draw the rows of a run as a PNG with the panels of the objective and the common ones.

    Rows may lack fields or hold nulls; a panel without data says so. Steps without rows are hatched. RunError when the
    PNG cannot be written.
    """
    # A figure of its own and not pyplot, which keeps every figure alive and is not made for threads.
    sheet = figure.Figure(figsize=(15, 8.4))
    sheet.subplots_adjust(left=0.06, right=0.95, bottom=0.07, top=0.9, wspace=0.42, hspace=0.32)
    backend_agg.FigureCanvasAgg(sheet)
    described = [_TOTAL, *view.panels, _NORM]
    draws = [functools.partial(_draw, description=panel) for panel in described] + [_draw_rate, _draw_speed]
    panels = sheet.subplots(2, -(-len(draws) // 2)).flat
    for draw, panel in zip(draws, panels):
        draw(panel, history)
        _finish(panel, max([1, *history.last_step.values()]))
        for first, last in history.gaps:
            panel.axvspan(first - 0.5, last + 0.5, **_GAP)
    for unused in list(panels):
        unused.remove()
    sheet.suptitle(title or _summary(history), fontsize=12)
    image = io.BytesIO()
    sheet.savefig(image, dpi=100, format="png")
    try:
        files.write_atomic(pathlib.Path(picture), image.getvalue())
    except OSError as error:
        raise errors.RunError(f"the picture {picture} cannot be written: {error.strerror}") from error


class Background:
    """Draws `curves` of a growing run in a thread, so that the devices need not wait. Use it in a `with`."""

    def __init__(self, recorder: series.Recorder, picture: pathlib.Path, view: display.View):
        self._recorder, self._picture, self._view = recorder, picture, view
        # One thread, so that two pictures are never written at once.
        self._thread = futures.ThreadPoolExecutor(1)
        self._drawing: futures.Future | None = None
        self._late = False  # rows came while a picture was being drawn

    def draw(self) -> None:
        """Draw all rows; while a picture is being drawn, put it off to the end. RunError when the last one failed."""
        self._late = self._drawing is not None and not self._drawing.done()
        if not self._late:
            self._finish()
            # Copied here, for rows go on coming in this thread.
            self._drawing = self._thread.submit(curves, self._recorder.history(), self._picture, self._view)

    def _finish(self) -> None:
        if self._drawing is not None:
            self._drawing.result()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, kind: type | None, *fault: object) -> None:
        with self._thread:
            if kind is None:
                self._finish()
                if self._late:
                    self.draw()
                    self._finish()


def _summary(history: series.History) -> str:
    count = history.rows.get("train", 0)
    if not count:
        return "no training step yet"
    text = f"{count:,} training step{'s' * (count > 1)}, the last is {history.last_step['train']:,}"
    if history.lost:
        text += f"; the rows of {history.lost:,} steps are missing (hatched)"
    losses = history.of("validation", "loss")
    if len(losses.low):
        best = int(np.argmin(losses.low))
        text += f"; best validation loss {losses.low[best]:.4f} at step {losses.steps[best]:,.0f}"
    return text


def smooth(
    values: Float64[np.ndarray, "n"], width: int, counts: Float64[np.ndarray, "n"] | float = 1.0
) -> Float64[np.ndarray, "n"]:
    """Centred moving mean over `width` values (odd), so without lag; near the ends over the values that exist.

    Each value weighs as much as its count.
    """
    # mean of values[low:high] = (totals[high] - totals[low]) / weight of the same: linear in the length, for any width
    counts = np.broadcast_to(counts, values.shape)
    totals = np.concatenate([[0.0], np.cumsum(values * counts)])
    weights = np.concatenate([[0.0], np.cumsum(counts)])
    place = np.arange(len(values))
    # width 5, six values:   place 0: [0 1 2]   place 1: [0 1 2 3]   place 2: [0 1 2 3 4]   ...   place 5: [3 4 5]
    low, high = np.maximum(place - width // 2, 0), np.minimum(place + width // 2 + 1, len(values))
    return (totals[high] - totals[low]) / (weights[high] - weights[low])


def _line(panel: axes.Axes, points: series.Points, label: str, colour: str = _TRAIN) -> None:
    """Thin raw values under a smoothed line; a dot when there is only one value."""
    if len(points.values) < _SMOOTHED_FROM:
        _exact(panel, points, label, colour)
        return
    _raw(panel, points, colour)
    # A fortieth of the run; | 1 makes it odd, so that as many values lie before a step as after it.
    width = max(5, len(points.values) // 40) | 1
    smoothed = smooth(points.values, width, points.counts)
    panel.plot(points.steps, smoothed, color=colour, linewidth=1.8, label=label)


def _exact(panel: axes.Axes, points: series.Points, label: str, colour: str = _TRAIN) -> None:
    steps, values = points.steps, points.values
    if len(values):
        panel.plot(steps, values, "o-" if len(values) == 1 else "-", color=colour, markersize=4, label=label)


def _raw(panel: axes.Axes, points: series.Points, colour: str) -> None:
    """Every value as a thin line; of more values than pixels, the span of each of a thousand stretches."""
    # A line through 400,000 points takes seconds to draw and covers the panel.
    if points.counts.sum() <= 3000:
        panel.plot(points.steps, points.values, color=colour, linewidth=0.6, alpha=0.3)
        return
    starts = np.unique(np.linspace(0, len(points.steps), 1000, endpoint=False).astype(int))
    low, high = np.minimum.reduceat(points.low, starts), np.maximum.reduceat(points.high, starts)
    panel.fill_between(points.steps[starts], low, high, color=colour, alpha=0.22, linewidth=0)


def _dots(panel: axes.Axes, points: series.Points, label: str = "validation", colour: str = _VALID) -> None:
    if len(points.values):
        style = {"markersize": 4 if len(points.values) <= 40 else 2, "linewidth": 1.4}
        panel.plot(points.steps, points.values, "o-", color=colour, label=label, **style)


def _chance(panel: axes.Axes, level: float, text: str) -> None:
    if panel.lines:
        panel.axhline(level, label=text, **_CHANCE)


_TOTAL = display.Panel("total loss", display.BITS, (("loss", "training"),), validation="loss")
_NORM = display.Panel("gradient norm", "before clipping, log scale", (("grad_norm", "gradient norm"),), log=True)


def _draw(panel: axes.Axes, history: series.History, description: display.Panel) -> None:
    panel.set(title=description.title, ylabel=description.unit)
    if description.log:
        panel.set_yscale("log")
    for (name, label), colour in zip(description.lines, (_TRAIN, _SECOND)):
        points = history.of("train", name)
        # A logarithm has no place for zero, which a penalty or a norm may be.
        _line(panel, _positive(points) if description.log else points, label, colour)
    if description.validation:
        _dots(panel, history.of("validation", description.validation))
    if description.chance is not None:
        level = description.chance
        _chance(panel, level, f"chance, {level:.2f}" if level >= 1 else f"chance, {level:.3f}")
    if description.unit in (display.SHARE, display.ENTRIES):
        panel.set_ylim(bottom=0)


def _positive(points: series.Points) -> series.Points:
    """The stretches with a positive mean; where their minimum is not positive, the mean stands for it."""
    points = series.Points(*(column[points.values > 0] for column in points))
    return points._replace(low=np.where(points.low > 0, points.low, points.values))


def _draw_rate(panel: axes.Axes, history: series.History) -> None:
    panel.set(title="learning rate", ylabel="per update")
    _exact(panel, history.of("train", "lr"), "learning rate")
    panel.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    panel.set_ylim(bottom=0)


def _draw_speed(panel: axes.Axes, history: series.History) -> None:
    temperature = history.of("train", "temperature")
    shown = len(temperature.values) > 0
    panel.set(title="throughput and temperature" if shown else "throughput", ylabel="audio seconds per second")
    _line(panel, history.of("train", "audio_seconds_per_second"), "audio s/s")
    panel.set_ylim(bottom=0)
    if shown:
        right = panel.twinx()
        _exact(right, temperature, "temperature", _SECOND)
        right.set_ylim(0, 1.1 * temperature.high.max())
        right.set_ylabel("Gumbel temperature", color=_SECOND)
        right.tick_params(axis="y", colors=_SECOND)
        right.spines["top"].set_visible(False)


def _two_or_five(value: float, position: int | None) -> str:
    # All of 2 ... 9 would overlap; a range of less than a decade needs a few labels besides its power of ten.
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _finish(panel: axes.Axes, last_step: int) -> None:
    """What all panels share: step axis, grid, legend, and a note where nothing was recorded."""
    panel.set_xlabel("step")
    panel.set_xlim(-0.03 * last_step, 1.03 * last_step)
    panel.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    panel.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    if not panel.lines:
        panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, ha="center", va="center", color="0.5")
        # A log axis without data has no limits to draw.
        panel.set_yscale("linear")
        panel.set_yticks([])
    elif panel.get_yscale() == "log":
        panel.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        panel.yaxis.set_minor_formatter(ticker.FuncFormatter(_two_or_five))
    # The legend of one line would repeat the title.
    handles, labels = panel.get_legend_handles_labels()
    if len(labels) > 1:
        panel.legend(handles, labels, fontsize=8, frameon=False)
