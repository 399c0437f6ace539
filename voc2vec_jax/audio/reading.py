"""How recordings are read, what is refused, and how what is odd about a recording is told."""

import dataclasses
import re
import warnings
from collections.abc import Callable, Iterable
from typing import NamedTuple

from voc2vec_jax import errors, printable

CHANNELS = ("mean", "first", "loudest")
ON_TRUNCATED = ("warn", "refuse")

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1_000, 1 << 24  # beyond, a header is damaged, and resampling takes seconds

Remark = Callable[[str, str], None]  # called with a kind ("truncated", say) and a sentence without the recording's name


class Reading(NamedTuple):
    """The choices that decide which samples a recording has.

    channel: what several channels become: their mean, the first of them, or the one with the most energy in what is
        read (of a stretch, that stretch), which takes a first pass.
    on_truncated: whether a recording that ends early is used as far as it goes, or refused.
    rescale_float: whether floats in the scale of whole numbers are divided by it, or refused; it takes a first pass
        over the whole of a recording of floats.
    """

    channel: str = "mean"
    on_truncated: str = "warn"
    rescale_float: bool = False


DEFAULT = Reading()

# What one recording of each kind of remark does, and what several do
_SAYS = {
    "truncated": ("ends early and is used as far as it goes", "end early and are used as far as they go"),
    "length": (
        "has a header whose length is not that of the file",
        "have a header whose length is not that of the file",
    ),
    "phase": (
        "loses most of its sound in the mean of its channels",
        "lose most of their sound in the mean of their channels",
    ),
    "silent_channel": ("has a silent channel", "have a silent channel"),
    "scale": (
        "holds floats in the scale of whole numbers, which were divided by it",
        "hold floats in the scale of whole numbers, which were divided by it",
    ),
    "damaged": ("has damaged parts, which are left out", "have damaged parts, which are left out"),
    "gaps": ("has pauses that hold no sound", "have pauses that hold no sound"),
    "tracks": ("holds several audio tracks", "hold several audio tracks"),
    "joined": ("changes its rate or channels", "change their rate or channels"),
}
_FLAG = re.compile(rf"--(?=(?:{'|'.join(Reading._fields)})\b)")


def check(how: Reading, front: str = "--") -> None:
    """InputError for a choice that there is not; `front` stands before a field's name in the error."""
    for name, choices in (("channel", CHANNELS), ("on_truncated", ON_TRUNCATED)):
        if (value := getattr(how, name)) not in choices:
            raise errors.InputError(f"{front}{name}={value} is none of {', '.join(choices)}")


class Told:
    """Collects the remarks on one recording, each once; to be given as `remark`."""

    def __init__(self) -> None:
        self.remarks: list[tuple[str, str]] = []

    def __call__(self, kind: str, text: str) -> None:
        if (kind, text) not in self.remarks:
            self.remarks.append((kind, text))


def spelt(text: str, front: str) -> str:
    """A remark or an error, with `front` before the fields of `Reading` in its remedy, which otherwise are flags."""
    return _FLAG.sub(front, text)


def summary(remarks: Iterable[tuple[str, str, str]], front: str = "--") -> list[str]:
    """A sentence for each kind of remark, from (name of the recording, kind, text): how many, and the first of them.

    `front` is that of `spelt`.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for name, kind, text in remarks:
        found.setdefault(kind, []).append((name, text))
    lines = []
    for kind, some in sorted(found.items()):
        count = len({name for name, _ in some})
        one, several = _SAYS.get(kind, (f"has a remark ({kind})", f"have a remark ({kind})"))
        does = f"{one}, namely" if count == 1 else f"{several}, such as"
        lines.append(f"{count:,} of the recordings {does} {some[0][0]}: {spelt(some[0][1], front)}")
    return lines


class AudioError(errors.InputError):
    """An unusable recording: `name` says which one, `reason` why."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self):
        return AudioError, (self.name, self.reason)


class AudioWarning(UserWarning):
    """A recording is used and something about it is odd."""


@dataclasses.dataclass
class Reporter:
    """What is found out about the recording `name` while it is read. Each remark is told once."""

    name: str
    reading: Reading = DEFAULT
    remark: Remark | None = None
    told: set[tuple[str, str]] = dataclasses.field(default_factory=set)

    def error(self, reason: str) -> AudioError:
        """The exception to raise for an unusable recording."""
        return AudioError(self.name, reason)

    def check_rate(self, rate_hz: int) -> None:
        """AudioError for a rate that no recording has."""
        if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
            raise self.error(f"its header gives a rate of {rate_hz} Hz, which is not a rate of audio")

    def tell(self, kind: str, text: str) -> None:
        """Tells what is odd; without someone to tell, it is a Python warning."""
        if (kind, text) in self.told:
            return
        self.told.add((kind, text))
        if self.remark is not None:
            self.remark(kind, text)
        else:
            warnings.warn(printable.line(f"{self.name}: {text}"), AudioWarning, stacklevel=2)

    def has_told(self, kind: str) -> bool:
        """Whether something of this kind was told."""
        return any(kind == other for other, _ in self.told)

    def ends_early(self, text: str) -> None:
        """Tells that the recording ends early; AudioError if such recordings are refused."""
        if self.reading.on_truncated == "refuse":
            raise self.error(text)
        self.tell("truncated", text)
