"""What a program declares of its command line: flags, words, and the recipes that it takes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

CONFIG = ml_collections.ConfigDict  # the `kind` of the flag that names a recipe


@dataclasses.dataclass(frozen=True)
class Recipes:
    """The recipes that a program takes.

    `names` are packaged ones, `shown` the one that --help shows where none is given, `notes` modules whose comments
    say what fields mean that a recipe does not state. `check` raises InputError for a recipe of another program.
    """

    names: tuple[str, ...]
    shown: str
    notes: tuple[str, ...]
    check: Callable[[ml_collections.ConfigDict], None]


@dataclasses.dataclass(frozen=True)
class Flag:
    """One `--name=value`. `kind` is str, int, float, bool or CONFIG; a flag that is not given has its `default`.

    `shown` stands for a value in texts, such as FOLDER.
    """

    help: str
    default: Any = None
    kind: type = str
    required: bool = False
    choices: tuple[str, ...] = ()
    shown: str = ""
    recipes: Recipes | None = None

    def __post_init__(self) -> None:
        if self.choices and self.default is not None and self.default not in self.choices:
            raise ValueError(f"the default {self.default!r} is none of {', '.join(self.choices)}")

    @property
    def placeholder(self) -> str:
        """What stands for a value in a usage line."""
        if self.choices:
            return "{" + ",".join(self.choices) + "}"
        kind = "RECIPE[:ARG]" if self.kind is CONFIG else self.kind.__name__.upper().replace("STR", "TEXT")
        return self.shown or kind


@dataclasses.dataclass(frozen=True)
class Positional:
    """Words without a dash, such as `DATASET...`: at least `least` of them, at most `most` (None: any number)."""

    name: str
    help: str
    least: int = 1
    most: int | None = None


COMMON = {
    "debug": Flag("show the traceback of an error", default=False, kind=bool),
    "help": Flag("show this text", default=False, kind=bool),
    "version": Flag("show the version", default=False, kind=bool),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """What a program accepts. `about` says what it is for, with examples."""

    flags: Mapping[str, Flag]
    program: str
    positional: Positional | None
    about: str = ""

    @property
    def config_flag(self) -> str | None:
        """The name of the flag that names a recipe."""
        return next((name for name, flag in self.flags.items() if flag.kind is CONFIG), None)

    @property
    def recipes(self) -> Recipes | None:
        """The recipes that the program takes."""
        return self.flags[self.config_flag].recipes if self.config_flag else None

    def usage(self) -> str:
        """One line with the words and the mandatory flags."""
        parts = [self.program]
        if self.positional:
            fixed = self.positional.most is not None and self.positional.most == self.positional.least
            word = self.positional.name + ("" if fixed else "...")
            parts.append(word if self.positional.least else f"[{word}]")
        for name, flag in self.flags.items():
            if flag.required:
                parts.append(f"--{name}={flag.placeholder}")
            if flag.kind is CONFIG:
                parts.append(f"[--{name}.FIELD=VALUE ...]")
        return " ".join([*parts, "[--FLAG=VALUE ...]"])
