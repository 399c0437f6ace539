"""The command line of every program: `argparse` with typed flags, a configuration file and overrides of its fields."""

import argparse
import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import ml_collections

from voc2vec_jax import errors, printable
from voc2vec_jax.runs import configuration, flag_hints, help_text, versions
from voc2vec_jax.runs.flags import COMMON, CONFIG, Flag, Line, Positional, Recipes

__all__ = ["CONFIG", "Arguments", "Flag", "Positional", "Recipes", "parse"]

_WORDS = "words"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What the command line said. Every flag is also an attribute (`arguments.workdir`)."""

    values: Mapping[str, Any]
    words: tuple[str, ...] = ()
    config_source: str | None = None  # PATH[:ARG] as given
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)  # dotted field -> text as given

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"no flag --{name}; the flags are {', '.join(self.values)}") from None


def parse(
    argv: Sequence[str],
    *,
    flags: Mapping[str, Flag],
    program: str,
    positional: Positional | None = None,
    about: str = "",
) -> Arguments:
    """Read `argv` (without the program's name). `--flag=value` and `--flag value` are the same; the last one wins.

    A flag of kind CONFIG loads `RECIPE[:ARG]` and takes overrides `--config.a.b=value`, typed by the field's
    present value. A value that begins with ~ has the home folder in its place. `--help` prints `about`, the flags and
    the recipe's fields, `--version` the version, and both raise SystemExit(0). Every fault raises InputError.
    """
    line = Line({**flags, **COMMON}, program, positional, about)
    argv = ["--help" if token == "-h" else token for token in argv]
    source = _config_source(argv, line.config_flag)
    config = None if source is None else _recipe(source, line)
    given, rest = _split(_parser(line, config), _with_values(argv, line, config))
    words = [*given.pop(_WORDS, ()), *rest]
    for token in words:
        if token.startswith("-") and token != "-":
            _refuse(token, line, config)
    overrides = {name.partition(".")[2]: text for name, text in given.items() if name not in line.flags}
    for field, text in overrides.items():
        configuration.override(config, field, text, prefix=f"{line.config_flag}.")
    if config is not None:
        configuration.expand_home(config)
    values = {name: _value(name, flag, given, config) for name, flag in line.flags.items()}
    if values["help"] or values["version"]:
        printable.show(help_text.text(line, config, source) if values["help"] else versions.line())
        raise SystemExit(errors.EXIT_DONE)
    _require(values, words, line)
    return Arguments(values, tuple(map(configuration.at_home, words)), source, overrides)


def _recipe(source: str, line: Line) -> ml_collections.ConfigDict:
    """The recipe that the command line names; InputError, too, for one of another program."""
    config = configuration.load(source)
    if line.recipes:
        try:
            line.recipes.check(config)
        except errors.InputError as error:
            raise errors.InputError(f"--{line.config_flag}={source}: {error}") from error
    return config


def _split(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Texts by flag or field, and the tokens that are neither."""
    try:
        given, rest = parser.parse_known_intermixed_args(argv)
    except argparse.ArgumentError as fault:  # without types and choices only an absent value is left to complain of
        name = fault.argument_name.strip()
        raise errors.InputError(f"{name} needs a value: give {name}=VALUE") from None
    return vars(given), rest


def _config_source(argv: Sequence[str], name: str | None) -> str | None:
    """The configuration that the command line names. It is loaded first: its fields are flags too."""
    if name is None:
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(f"--{name}", dest=name)
    return _split(parser, argv)[0][name]


def _parser(line: Line, config: ml_collections.ConfigDict | None) -> argparse.ArgumentParser:
    """A parser that leaves values as text, so that every fault can be said in our words."""
    parser = argparse.ArgumentParser(
        argument_default=argparse.SUPPRESS, add_help=False, allow_abbrev=False, exit_on_error=False
    )
    if line.positional:
        parser.add_argument(_WORDS, nargs="*")
    for name in (*line.flags, *_fields(line, config)):
        parser.add_argument(f"--{name}", dest=name)
    return parser


def _fields(line: Line, config: ml_collections.ConfigDict | None) -> dict[str, Any]:
    """The configuration's fields as flags, such as `config.optimizer.lr`."""
    return {} if config is None else dict(configuration.fields(config, f"{line.config_flag}."))


def _with_values(argv: Sequence[str], line: Line, config: ml_collections.ConfigDict | None) -> list[str]:
    """Join to their flag what argparse would read differently: `--debug` alone, and values that begin with a dash."""
    kinds = {f"--{name}": flag.kind is bool for name, flag in line.flags.items()}
    kinds |= {f"--{name}": isinstance(value, bool) for name, value in _fields(line, config).items()}
    found: list[str] = []
    tokens = iter([*argv, ""])
    token = next(tokens)
    for after in tokens:
        if kinds.get(token) and after.lower() not in ("true", "false"):
            token += "=true"
        elif kinds.get(token) is False and len(after) > 1 and after[0] == "-" != after[1]:
            token, after = f"{token}={after}", next(tokens)
        found.append(token)
        token = after
    return found


def _refuse(token: str, line: Line, config: ml_collections.ConfigDict | None) -> NoReturn:
    """InputError for a token that looks like a flag but is none."""
    if not token.startswith("--"):
        raise errors.InputError(f"flags have two dashes: {token} is none; {flag_hints.of(f'-{token}', line, config)}")
    name = token.removeprefix("--").partition("=")[0]
    base, dot, field = name.partition(".")
    if dot and base == line.config_flag:
        if config is None:
            raise errors.InputError(f"--{name} overrides a recipe that was not given: add --{base}=RECIPE")
        configuration.override(config, field, "", prefix=f"{base}.")  # says what is wrong with it
    raise errors.InputError(f"there is no flag --{name}; {flag_hints.of(token, line, config)}")


def _value(name: str, flag: Flag, given: Mapping[str, str], config: ml_collections.ConfigDict | None) -> Any:
    if flag.kind is CONFIG:
        return config
    if name not in given:
        return flag.default
    text = given[name]
    value = configuration.at_home(configuration.parse_value(f"--{name}", text, flag.kind))
    if flag.choices and value not in flag.choices:
        near = difflib.get_close_matches(text, flag.choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise errors.InputError(f"--{name}={text} is none of {', '.join(flag.choices)}{hint}")
    return value


def _require(values: Mapping[str, Any], words: Sequence[str], line: Line) -> None:
    usage = f"usage: {line.usage()}"
    for word in words:
        if hint := flag_hints.of_word(word, line):
            raise errors.InputError(f"unexpected word {word!r}; {hint}")
    for name, flag in line.flags.items():
        if flag.required and values[name] in (None, ""):
            known = f"; recipes: {', '.join(flag.recipes.names)}" if flag.recipes else ""
            raise errors.InputError(f"--{name} is missing; {usage}{known}")
    least, most = (line.positional.least, line.positional.most) if line.positional else (0, 0)
    if len(words) < least:
        missing = f"{line.positional.name} is missing"
        if words:
            missing = f"{line.positional.name} are {least} words, and there is {' '.join(words)} alone"
        raise errors.InputError(f"{missing}; {usage}")
    if most is not None and len(words) > most:
        raise errors.InputError(f"unexpected word {words[most]!r}; {usage}")
