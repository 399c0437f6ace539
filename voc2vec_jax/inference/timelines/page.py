"""The page of a recording: a player, and what is heard, which follows it. One file, without anything from elsewhere."""

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib import parse

import jinja2
import markupsafe
import numpy as np
from jaxtyping import Float

from voc2vec_jax.inference.timelines import events as timeline_events
from voc2vec_jax.inference.timelines import listening, picture
from voc2vec_jax.runs import pages

MOST_WINDOWS = 20_000  # of which the page holds probabilities; more are brought together
MOST_EVENTS = 1_000


class Subject(NamedTuple):
    """A recording: `name` for people, `seconds`, and the file names under which a browser may find its sound."""

    name: str
    seconds: float
    sources: tuple[str, ...]
    model: str


class Link(NamedTuple):
    """Another page beside this one."""

    href: str
    text: str


class Download(NamedTuple):
    """A text that the page carries: its file name, what it is for people, and itself."""

    name: str
    title: str
    text: str


@functools.cache
def templates() -> jinja2.Environment:
    """The page's templates."""
    environment = pages.environment("voc2vec_jax.inference.timelines")
    environment.filters["clock"] = picture.clock
    environment.filters["moment"] = picture.moment
    environment.filters["url"] = parse.quote
    return environment


def page(
    subject: Subject,
    at: Float[np.ndarray, " e"],
    chances: Float[np.ndarray, "w v"],
    classes: Sequence[str],
    found: Sequence[timeline_events.Event],
    rules: timeline_events.Rules | None,
    heard: listening.Heard,
    clips: Sequence[timeline_events.Event],
    still: bytes,
    downloads: Sequence[Download],
) -> str:
    """The document. `heard.clips` are the sounds of `clips`; `still` is the picture for paper and without scripts.

    `rules` None is for numbers, which are no probabilities.
    """
    sounds = dict(zip(clips, heard.clips))
    shown = found if len(found) <= MOST_EVENTS else sorted(sorted(found, key=lambda event: -event.peak)[:MOST_EVENTS])
    data = _data(subject, *picture.coarse(at, chances, MOST_WINDOWS), classes, shown, rules)
    return _render(
        "timeline.html.j2",
        subject=subject,
        rules=rules,
        counts=_counts(classes, found),
        events=[(event, _uri("audio/mpeg", sounds[event]) if event in sounds else "") for event in shown],
        total=len(found),
        colours={label: picture.colour(number) for number, label in enumerate(classes)},
        data=_script_data(data),
        sound=_uri("audio/mpeg", heard.sound) if heard.sound else "",
        spectrum=_uri("image/png", picture.spectrum(heard.image)),
        still=_uri("image/png", still),
        downloads=[(each, _uri("text/plain", each.text.encode())) for each in downloads],
        column_seconds=subject.seconds / heard.image.shape[1],
    )


def index(title: str, rows: Sequence[tuple[Link, float, int]], left_out: int) -> str:
    """A page with a row for each page: its link, seconds and number of events; `left_out` recordings have none."""
    return _render("index.html.j2", title=title, rows=rows, left_out=left_out)


def _render(name: str, **values: Any) -> str:
    environment = templates()
    style, script = (environment.loader.get_source(environment, f"timeline.{kind}")[0] for kind in ("css", "js"))
    digests = (base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (style, script))
    policy = (
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; "
        "media-src data: blob: file: 'self'; base-uri 'none'; form-action 'none'"
    ).format(*digests)
    own = {"style": markupsafe.Markup(style), "script": markupsafe.Markup(script), "policy": policy}
    return environment.get_template(name).render(**own, **values)


def _counts(classes: Sequence[str], found: Sequence[timeline_events.Event]) -> list[tuple[str, int, float, float]]:
    """Of each class with events: their number, their seconds and their highest probability."""
    rows = []
    for label in classes:
        if own := [event for event in found if event.label == label]:
            seconds = sum(event.end - event.start for event in own)
            rows.append((label, len(own), seconds, max(event.peak for event in own)))
    return rows


def _data(
    subject: Subject,
    at: Float[np.ndarray, " e"],
    chances: Float[np.ndarray, "w v"],
    classes: Sequence[str],
    found: Sequence[timeline_events.Event],
    rules: timeline_events.Rules | None,
) -> dict[str, Any]:
    """What the script reads; values are bytes from `low` to `high`."""
    low, high = (0.0, 1.0) if rules else (float(chances.min()), float(chances.max()))
    scaled = np.round(255 * np.clip((chances - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)
    return {
        "seconds": subject.seconds,
        "sources": [parse.quote(source) for source in subject.sources],
        "at": base64.b64encode(at.astype("<f4").tobytes()).decode(),
        "values": base64.b64encode(scaled.tobytes()).decode(),
        "low": low,
        "high": high,
        "threshold": rules.threshold if rules else None,
        "classes": [[label, picture.colour(number)] for number, label in enumerate(classes)],
        "events": [[round(event.start, 3), round(event.end, 3), classes.index(event.label)] for event in found],
    }


def _script_data(values: Any) -> markupsafe.Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(values, separators=(",", ":"))
    return markupsafe.Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
