"""How a report's pictures look: sizes that a phone can show, and one drawing for light pages and one for dark ones."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import matplotlib
from matplotlib import colors, figure
from matplotlib.backends import backend_agg

from voc2vec_jax.reports import text as report_text

FORMATS = ("png", "pdf", "svg")
WIDTH = 4.6  # inches, of a picture that a phone of 360 pixels shows whole with letters of eight pixels and more
_DPI = 200
MARKERS = "osD^vPX*"
_STYLE = {
    "text.parse_math": False,  # a `$` in a class name is a dollar
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "voc2vec_jax",
}
_NAME_LENGTH = 28


class Theme(NamedTuple):
    """Colours of a drawing: what it is drawn on and with, those of names, and those of shares from 0 to 1."""

    key: str  # of the PNG in `Figure.images`
    paper: str
    ink: str
    soft: str
    line: str
    warn: str
    palette: tuple[str, ...]  # all eight differ in lightness too
    shares: colors.Colormap
    turn: float  # the share above which letters have the colour `over`
    over: str


def _shares(*names: str) -> colors.Colormap:
    return colors.LinearSegmentedColormap.from_list("shares", names)


LIGHT = Theme(
    key="png",
    paper="#ffffff",
    ink="#1d2329",
    soft="#5a6570",
    line="#c9d1d9",
    warn="#8a2734",
    # The first three are the pre-training curves' colours.
    palette=("#1f6fb4", "#d1495b", "#3a9d6e", "#e0a026", "#7b52ab", "#5bb8d4", "#8c5a3c", "#3d4451"),
    shares=_shares("#ffffff", "#8db8dc", "#1f6fb4", "#0d3a63"),
    turn=0.45,
    over="#ffffff",
)
DARK = Theme(
    key="dark",
    paper="#1b2127",
    ink="#e4e8ec",
    soft="#a3adb8",
    line="#46515c",
    warn="#ffb3bd",
    palette=("#5aa5e6", "#f0788a", "#5cc794", "#f2bd55", "#b08ee0", "#9fe0f5", "#c98d68", "#c3cad3"),
    shares=_shares("#1b2127", "#204a70", "#3d8bcc", "#b5dcff"),
    turn=0.7,
    over="#10151a",
)
THEMES = (LIGHT, DARK)


class Figure(NamedTuple):
    """A picture: its bytes by format (always "png", and "dark" for dark pages), and its text for screen readers."""

    name: str  # stem of its files
    title: str
    text: str
    images: Mapping[str, bytes]
    size: tuple[float, float] = (WIDTH, WIDTH)  # inches

    @property
    def wide(self) -> bool:
        """Whether a phone shows a part of it at a time."""
        return self.size[0] > 1.15 * WIDTH


Draw = Callable[[figure.Figure, Theme], object]


def style(place: int, theme: Theme = LIGHT) -> tuple[str, str]:
    """Colour and marker of the class or system at `place`: different for the first 64."""
    count = len(theme.palette)
    return theme.palette[place % count], MARKERS[(place + place // count) % len(MARKERS)]


def short(name: str) -> str:
    """A name cut to fit beside an axis."""
    name = report_text.clean(name)
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"


def headed(sheet: figure.Figure, first: str, second: str, notes: Sequence[str], theme: Theme) -> None:
    """A heading of two names, on a line of their own each where one is too short, and notes below it."""
    whole = f"{first}: {second}" if second else first
    if len(whole) > 10 * sheet.get_figwidth() and second:
        whole = f"{short(first)}\n{short(second)}"
    sheet.suptitle(whole, fontsize=11, color=theme.ink)
    if notes:
        sheet.axes[0].set_title("\n".join(notes), fontsize=8, color=theme.warn)


def drawn(
    name: str, title: str, text: str, size: tuple[float, float], draw: Draw, formats: Sequence[str] = ()
) -> Figure:
    """The picture that `draw` makes on a sheet of `size` inches, in both themes; files are of the light one."""
    images: dict[str, bytes] = {}
    for theme in THEMES:
        with _sheet(size, theme) as sheet:
            draw(sheet, theme)
            images |= saved(sheet, theme, ("png", *formats) if theme is LIGHT else ("png",))
    return Figure(name, title, text, images, size)


@contextlib.contextmanager
def _sheet(size: tuple[float, float], theme: Theme) -> Iterator[figure.Figure]:
    """An empty figure in the report's style; letters missing from the font become boxes."""
    inks = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), theme.ink)
    lines = dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), theme.soft)
    papers = dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), theme.paper)
    with matplotlib.rc_context({**_STYLE, **inks, **lines, **papers}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        sheet = figure.Figure(figsize=size, layout="constrained")
        backend_agg.FigureCanvasAgg(sheet)
        yield sheet


def saved(sheet: figure.Figure, theme: Theme, formats: Sequence[str]) -> dict[str, bytes]:
    """The bytes of a drawing, which depend on the runs only: no dates are stored. The PNG is under the theme's key."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}
    images = {}
    for kind in dict.fromkeys(formats):
        data = io.BytesIO()
        sheet.savefig(data, format=kind, dpi=_DPI, metadata=dates[kind])
        images[theme.key if kind == "png" else kind] = data.getvalue()
        sheet.set_layout_engine("none")  # it is laid out now, for every format
    return images
