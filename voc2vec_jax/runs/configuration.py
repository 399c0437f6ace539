"""A configuration file and its overrides. The file is Python; an override is parsed by the field's type, never run."""

import difflib
import importlib.machinery
import importlib.util
import inspect
import os
import pathlib
import traceback
from collections.abc import Iterator
from typing import Any

import ml_collections
from ml_collections import config_dict

from voc2vec_jax import errors, opening
from voc2vec_jax.runs import recipes


def _literal(name: str, text: str, kind: type, expected: str) -> Any:
    try:
        value = kind(text.strip())
    except ValueError:
        raise errors.InputError(f"{name}={text} is not {expected}") from None
    if value != value:
        raise errors.InputError(f"{name}={text} is not a number")
    return value


def at_home(value: Any) -> Any:
    """A text that begins with ~ with the home folder in its place, as shells do; anything else as it is."""
    if isinstance(value, str):
        return os.path.expanduser(value)
    return type(value)(map(at_home, value)) if isinstance(value, tuple | list) else value


def expand_home(config: ml_collections.ConfigDict) -> None:
    """Puts the home folder in place of ~ in every field."""
    for name, value in fields(config):
        if (there := at_home(value)) != value:
            group, _ = find(config, name, "config.")
            group[name.rsplit(".", 1)[-1]] = there


def parse_value(name: str, text: str, kind: type) -> Any:
    """A bool, int, float or str from its text. Nothing is evaluated."""
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise errors.InputError(f"{name}={text} is not a bool: give true or false")
        return text.lower() in ("true", "1")
    if kind is int:
        return _literal(name, text, int, "an int, such as 4000 or 4_000")
    if kind is float:
        return _literal(name, text, float, "a float, such as 0.1 or 5e-4")
    if kind is str:
        return text
    raise errors.InputError(f"{name} holds a {kind.__name__}, which only the configuration file can set")


def _parse_sequence(name: str, text: str, present: tuple | list) -> tuple | list:
    """Comma-separated items, of the type of the present items (str when there are none)."""
    kinds = {type(item) for item in present} or {str}
    kind = float if kinds == {int, float} else kinds.pop() if len(kinds) == 1 else object
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("()", "[]"):
        inner = inner[1:-1]
    items = [item.strip() for item in inner.split(",")]
    items = items[:-1] if items[-1] == "" else items
    return type(present)(parse_value(name, item, kind) for item in items)


def override(config: ml_collections.ConfigDict, field: str, text: str, *, prefix: str = "config.") -> None:
    """Set the dotted `field` from its text, typed by its present value.

    A tuple or list is comma-separated. A field that is None takes `none`, or a value of its placeholder's type, or
    text. InputError for an unknown field and for a value of another type.
    """
    group, value = find(config, field, prefix)
    leaf = field.rsplit(".", 1)[-1]
    name = f"--{prefix}{field}"
    if isinstance(value, ml_collections.ConfigDict):
        raise errors.InputError(f"{name} is a group of fields: set one of {', '.join(value)}")
    if value is None and text.lower() == "none":
        return
    raw = dict(group.items(preserve_field_references=True))[leaf]
    kind = raw.get_type() if isinstance(raw, config_dict.FieldReference) else type(raw)
    if kind in (tuple, list):
        group[leaf] = _parse_sequence(name, text, kind() if value is None else value)
    else:
        group[leaf] = parse_value(name, text, str if kind is type(None) else kind)


def find(config: ml_collections.ConfigDict, field: str, prefix: str) -> tuple[ml_collections.ConfigDict, Any]:
    """The group that holds the dotted `field`, and the field's value."""
    group: Any = config
    *parents, leaf = field.split(".")
    for part in parents:
        group = _present(group, part) if isinstance(group, ml_collections.ConfigDict) else None
    if not isinstance(group, ml_collections.ConfigDict) or leaf not in group:
        raise errors.InputError(f"there is no field --{prefix}{field}; {_nearest_field(config, field, prefix)}")
    return group, _present(group, leaf)


def _present(group: ml_collections.ConfigDict, name: str) -> Any:
    """A field's value; None for an unknown field and for a placeholder without a value."""
    value = dict(group.items(preserve_field_references=True)).get(name)
    if isinstance(value, config_dict.FieldReference):
        return None if value.empty() else value.get()
    return value


def _nearest_field(config: ml_collections.ConfigDict, field: str, prefix: str) -> str:
    known = [name for name, _ in fields(config)]
    near = difflib.get_close_matches(field, known, n=1)
    if not near:  # the right name in the wrong group, or a misspelt last part
        leaves = {name.rsplit(".", 1)[-1]: name for name in known}
        near = [leaves[leaf] for leaf in difflib.get_close_matches(field.rsplit(".", 1)[-1], leaves, n=1)]
    if near:
        return f"did you mean --{prefix}{near[0]}?"
    return "--help lists the fields"


def fields(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field as (prefix and dotted name, value), in the configuration's order."""
    for name in config:
        value = _present(config, name)
        if isinstance(value, ml_collections.ConfigDict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def as_dict(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The configuration as plain nested dicts. InputError when a required field has no value."""
    try:
        return config.to_dict()
    except config_dict.RequiredValueError:
        empty = " or ".join(f"--config.{name}" for name, value in fields(config) if value is None)
        raise errors.InputError(f"a required field of the configuration is not set: give {empty}") from None


def load(source: str) -> ml_collections.ConfigDict:
    """The configuration that `NAME[:ARG]` or `PATH[:ARG]` describes: `get_config(ARG)` of a Python file, locked.

    NAME is a recipe of this package, which wins over a file of that name: write ./NAME for the file. The file may
    refuse an ARG with InputError, ValueError or KeyError. InputError for every fault, in one sentence.
    """
    path, argument = split_source(at_home(source))
    if not os.path.isfile(opening.checked(path)):
        raise errors.InputError(f"--config={source}: {recipes.absent(path)}")
    get_config = getattr(_execute(path), "get_config", None)
    if not callable(get_config):
        raise errors.InputError(f"--config={source}: {path} does not define get_config(arg=None)")
    takes_argument = bool(inspect.signature(get_config).parameters)
    if argument is not None and not takes_argument:
        raise errors.InputError(f"--config={source}: {path} takes no argument, so {argument!r} must go")
    try:
        config = get_config(argument) if takes_argument else get_config()
    except errors.InputError as error:
        raise errors.InputError(f"--config={source}: {error}") from error
    except (ValueError, KeyError) as error:
        raise errors.InputError(f"--config={source}: {path} refuses the argument {argument!r}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise errors.InputError(f"--config={source}: get_config returned a {type(config).__name__}, no ConfigDict")
    return config.lock()


def split_source(source: str) -> tuple[pathlib.Path, str | None]:
    """The file and the argument that `NAME[:ARG]` or `PATH[:ARG]` stands for; there may be no such file."""
    name, found, argument = source.partition(":")
    if path := recipes.named(name):
        return path, argument if found else None
    if pathlib.Path(source).is_file():
        return pathlib.Path(source), None
    start, found, argument = source.partition(".py:")
    path = pathlib.Path(f"{start}.py" if found else source)
    return recipes.packaged(path), argument if found else None


def _execute(path: pathlib.Path) -> Any:
    """The module that the file defines. InputError names the line where it does not load."""
    spec = importlib.util.spec_from_loader(
        f"_config_{path.stem}", importlib.machinery.SourceFileLoader(f"_config_{path.stem}", str(path))
    )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except errors.InputError:
        raise
    except SyntaxError as error:
        raise errors.InputError(f"{path} is not Python at line {error.lineno}: {error.msg}") from error
    except Exception as error:
        place = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f" at line {place[-1].lineno}" if place else ""
        raise errors.InputError(f"{path} does not load{line}: {type(error).__name__}: {error}") from error
    return module
