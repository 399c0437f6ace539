"""Spectrogram, probabilities and events of a recording as one figure."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import figure, ticker
from matplotlib.backends import backend_agg
from PIL import Image

from voc2vec_jax.inference.timelines import events as timeline_events

# Classes take these in turns: they differ in lightness too
COLOURS = ("#1f6fb4", "#d1495b", "#3a9d6e", "#e0a026", "#7b52ab", "#5bb8d4", "#8c5a3c", "#3d4451")
_LINES = ("-", "--", ":")  # where the colours begin again
COLOUR_MAP = "magma"
MOST_POINTS = 2000  # of a curve
MOST_CURVES = 8
MOST_TICKS = 10
_STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, *(60.0 * k for k in (1, 2, 5, 10, 15, 30, 60, 120, 240, 480)))
_STYLE = {"text.parse_math": False, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def colour(number: int) -> str:
    """The colour of a class by its number."""
    return COLOURS[number % len(COLOURS)]


def spectrum(image: UInt8[np.ndarray, "b c"]) -> bytes:
    """A spectrogram alone as PNG, a pixel for each value."""
    table = (matplotlib.colormaps[COLOUR_MAP](np.arange(256))[:, :3] * 255).astype(np.uint8)
    picture = Image.fromarray(image)
    picture.putpalette(table.tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def coarse(
    at: Float[np.ndarray, " e"], chances: Float[np.ndarray, "w v"], most: int
) -> tuple[Float[np.ndarray, " _"], Float[np.ndarray, "_ v"]]:
    """At most about `most` windows: the highest values of groups of consecutive ones."""
    step = -(-len(chances) // most)
    if step <= 1:
        return at, chances
    firsts = np.arange(0, len(chances), step)
    return np.append(at[firsts], at[-1]), np.maximum.reduceat(chances, firsts)


@contextlib.contextmanager
def _sheet(lanes: int) -> Iterator[figure.Figure]:
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        sheet = figure.Figure(figsize=(10, 4.6 + 0.16 * lanes), layout="constrained")
        backend_agg.FigureCanvasAgg(sheet)
        yield sheet


def draw(
    title: str,
    image: UInt8[np.ndarray, "b c"],
    at: Float[np.ndarray, " e"],
    chances: Float[np.ndarray, "w v"],
    classes: Sequence[str],
    found: Sequence[timeline_events.Event],
    threshold: float | None,
) -> bytes:
    """The figure as PNG. `threshold` None is for numbers, which are no probabilities."""
    seconds = float(at[-1])
    at, chances = coarse(at, chances, MOST_POINTS)
    lanes = [label for label in classes if any(event.label == label for event in found)]
    heights = [2.2, 1.6, *([0.4 + 0.14 * len(lanes)] if lanes else [])]
    with _sheet(len(lanes)) as sheet:
        panels = sheet.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        panels[0].imshow(image, aspect="auto", extent=(0, seconds, 0, 8), cmap=COLOUR_MAP, interpolation="antialiased")
        panels[0].set(ylabel="kHz", title=title)
        for number in sorted(np.argsort(-chances.max(0))[:MOST_CURVES].tolist()):
            values = np.append(chances[:, number], chances[-1, number])
            look = {"color": colour(number), "linestyle": _LINES[number // len(COLOURS) % len(_LINES)]}
            panels[1].step(at, values, where="post", label=classes[number], linewidth=1.1, **look)
        panels[1].set(ylabel="value" if threshold is None else "probability")
        if threshold is not None:
            panels[1].axhline(threshold, color="0.6", linewidth=0.8, linestyle="--")
            panels[1].set_ylim(0, 1.02)
        panels[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
        for lane, label in enumerate(lanes):
            bars = [(event.start, event.end - event.start) for event in found if event.label == label]
            panels[2].broken_barh(bars, (lane - 0.4, 0.8), color=colour(classes.index(label)))
        if lanes:
            panels[2].set_yticks(range(len(lanes)), lanes)
            panels[2].set_ylim(len(lanes) - 0.4, -0.6)
        panels[-1].set(xlabel="time", xlim=(0, seconds))
        step = next((step for step in _STEPS if seconds / step <= MOST_TICKS), 86_400.0)
        panels[-1].xaxis.set_major_locator(ticker.MultipleLocator(step))
        panels[-1].xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: clock(value)))
        file = io.BytesIO()
        sheet.savefig(file, format="png", dpi=130, metadata={"Software": None})
    return file.getvalue()


def clock(seconds: float) -> str:
    """A time as 7.5, 2:07 or 1:02:07; fractions only where a second is visible."""
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def moment(seconds: float) -> str:
    """A time to a tenth of a second, as 0:07.5 or 1:02:07.0."""
    minutes, tenths = divmod(round(10 * seconds), 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"
