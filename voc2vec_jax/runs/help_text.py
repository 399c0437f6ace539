"""What `--help` prints: what a program is for, its words and flags, and every field of its recipe with its meaning."""

import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

import ml_collections

from voc2vec_jax.runs import configuration, field_notes, flags

_LEFT = 44  # columns of names and values; a longer one has its text on the next line
_NARROWEST = 40  # columns of text, however narrow the terminal


def text(line: flags.Line, config: ml_collections.ConfigDict | None, source: str | None) -> str:
    """The whole text. `config` is the recipe that `source` names; None shows the program's usual one.

    On a terminal lines are wrapped; elsewhere a flag or field has a line, which can be searched and copied.
    """
    blocks = [f"usage: {line.usage()}"]
    if line.about:
        blocks.append(line.about.strip())
    if line.positional:
        blocks.append(_block("words", [(line.positional.name, line.positional.help)]))
    blocks.append(_block("flags", [_flag(name, flag) for name, flag in line.flags.items()]))
    if line.recipes and config is None:
        source = line.recipes.shown
        config = configuration.load(source)
    if config is not None:
        title = f"fields of --{line.config_flag}={source} with their values; another recipe may have others"
        blocks.append(_block(title, _fields(line, config, source)))
    return "\n\n".join(blocks)


def _flag(name: str, flag: flags.Flag) -> tuple[str, str]:
    said = flag.help
    if flag.recipes:
        said += f"; recipes: {', '.join(flag.recipes.names)}"
    if flag.required:
        said += " (required)"
    elif flag.default not in (None, False, ""):
        said += f" (default {shown(flag.default)})"
    return f"--{name}" if flag.kind is bool else f"--{name}={flag.placeholder}", said


def _fields(line: flags.Line, config: ml_collections.ConfigDict, source: str) -> Iterable[tuple[str, str]]:
    path, _ = configuration.split_source(source)
    names = (*line.recipes.names, *line.recipes.notes) if line.recipes else ()
    notes = field_notes.of_recipe(path, names)
    for name, value in configuration.fields(config):
        yield f"--{line.config_flag}.{name}={shown(value)}", notes.get(name.rsplit(".", 1)[-1], "")


def shown(value: Any) -> str:
    """A value as it is given on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(str(item) for item in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _block(title: str, rows: Iterable[tuple[str, str]]) -> str:
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    lines = [title]
    for left, right in rows:
        width = max(_NARROWEST, terminal - _LEFT - 4)
        told = textwrap.wrap(right, width, break_long_words=False, break_on_hyphens=False) if terminal else [right]
        told = told or [""]
        if len(left) > _LEFT:
            lines.append(f"  {left}")
        else:
            lines.append(f"  {left:<{_LEFT}}  {told.pop(0)}".rstrip())
        lines += [f"{'':<{_LEFT + 4}}{rest}" for rest in told if rest]
    return "\n".join(lines)
