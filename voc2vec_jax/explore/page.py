"""The page of an exploration: one HTML file that needs nothing beside it, so that it can be mailed."""

import base64
import hashlib
import math

import jinja2
import markupsafe

from voc2vec_jax.explore import content
from voc2vec_jax.reports import page as report_page

SHAPES = 8  # of marks; with as many colours, 64 classes differ
WIDTH, HEIGHT, EDGE = 900, 640, 18  # of the map


def page(found: content.Page) -> str:
    """The document. Its policy lets in nothing from elsewhere, and no script but its own."""
    environment = report_page.templates()
    own = jinja2.PackageLoader("voc2vec_jax.explore")
    environment = environment.overlay(loader=jinja2.ChoiceLoader([own, environment.loader]))
    style = "\n".join(_source(environment, name) for name in ("report.css", "explore.css"))
    script = _source(environment, "explore.js")
    policy = (
        f"default-src 'none'; style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("explore.html.j2").render(
        policy=policy,
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        found=found,
        shapes=[shape(number) for number in range(SHAPES)],
        mark=mark,
        spot=spot,
        size=(WIDTH, HEIGHT),
        shares=content.shares(found.matrix),
        by_class=[(row, [clip for clip in found.clips if clip.place == row.place]) for row in found.classes],
    )


def _source(environment: jinja2.Environment, name: str) -> str:
    return environment.loader.get_source(environment, name)[0]


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def mark(place: int) -> tuple[int, int]:
    """Numbers of the colour and the shape of a class, different for the first 64; as `figures.style`."""
    return place % SHAPES, (place + place // SHAPES) % SHAPES


def spot(x: float, y: float) -> tuple[str, str]:
    """A place on the map, from 0 to 1, in units of the drawing; y goes up."""
    return f"{EDGE + x * (WIDTH - 2 * EDGE):.1f}", f"{HEIGHT - EDGE - y * (HEIGHT - 2 * EDGE):.1f}"


def shape(number: int) -> str:
    """The outline of a mark around 0,0, as an SVG path: disc, square, diamond, triangles, pentagon, plus, cross."""
    if number == 0:
        return "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z"
    if number in (6, 7):
        arm = [(-2.0, -2.0), (-2.0, -6.0), (2.0, -6.0)]
        return _polygon([_turned(x, y, 90.0 * turn + 45.0 * (number == 7)) for turn in range(4) for x, y in arm])
    sides, first = {1: (4, 45), 2: (4, 0), 3: (3, 90), 4: (3, -90), 5: (5, -90)}[number]
    return _polygon([_turned(6.5, 0.0, first + 360 * k / sides) for k in range(sides)])


def _turned(x: float, y: float, degrees: float) -> tuple[float, float]:
    angle = math.radians(degrees)
    return x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)


def _polygon(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points) + "z"
