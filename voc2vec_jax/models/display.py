"""What people see of an objective. A family names its console columns and its plot panels.

`pretraining.progress` prints the columns, and `pretraining.curves` draws the panels.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of the console. It shows `fields` of a row of metrics, each in the format `form`."""

    heading: str
    width: int
    fields: tuple[str, ...]
    form: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """One plot over the steps.

    `lines` are (field, label) of the training curves, `validation` the field of the validation curve, and `chance`
    the level that guessing reaches.
    """

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    validation: str | None = None
    chance: float | None = None
    log: bool = False


@dataclasses.dataclass(frozen=True)
class View:
    """The columns and panels of one objective, besides those that every pre-training has."""

    columns: tuple[Column, ...] = ()
    panels: tuple[Panel, ...] = ()


# Only what every run shows, for a caller that names no objective.
COMMON = View()
# Units of panels; a share and a count begin their axis at zero.
BITS = "bits per masked frame"
SHARE = "share of masked frames"
ENTRIES = "entries in use"
