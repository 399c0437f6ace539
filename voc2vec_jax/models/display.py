"""How an objective's numbers are shown to people: a family names its columns and panels, `logs` and `plots` draw."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the console: field or fields of a row of metrics, and the format of each."""

    heading: str
    width: int
    fields: tuple[str, ...]
    form: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """A plot over steps: (field, label) of training lines, the field validated, and the level of a guess."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    validation: str | None = None
    chance: float | None = None
    log: bool = False


@dataclasses.dataclass(frozen=True)
class View:
    """What an objective adds to the columns and panels that every pre-training has."""

    columns: tuple[Column, ...] = ()
    panels: tuple[Panel, ...] = ()


COMMON = View()
BITS = "bits per masked frame"
SHARE = "share of masked frames"
ENTRIES = "entries in use"
