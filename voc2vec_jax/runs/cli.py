"""The command line of every program: `argparse` with typed flags, a configuration file and overrides of its fields."""

import argparse
import dataclasses
import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.runs import configuration

CONFIG = ml_collections.ConfigDict  # the `kind` of the flag that names a configuration file
_WORDS = "words"
_HELP_COLUMNS = 1000  # a flag or field a line, however long: values can be searched and copied


@dataclasses.dataclass(frozen=True)
class Flag:
    """One `--name=value`. `kind` is str, int, float, bool or CONFIG; a flag that is not given has its `default`."""

    help: str
    default: Any = None
    kind: type = str
    required: bool = False
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.choices and self.default is not None and self.default not in self.choices:
            raise ValueError(f"the default {self.default!r} is none of {', '.join(self.choices)}")


@dataclasses.dataclass(frozen=True)
class Positional:
    """Words without a dash, such as `DATASET...`: at least `least` of them, at most `most` (None: any number)."""

    name: str
    help: str
    least: int = 1
    most: int | None = None


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


_COMMON = {
    "debug": Flag("show the traceback of an error", default=False, kind=bool),
    "help": Flag("show this text", default=False, kind=bool),
}


def parse(
    argv: Sequence[str], *, flags: Mapping[str, Flag], program: str, positional: Positional | None = None
) -> Arguments:
    """Read `argv` (without the program's name). `--flag=value` and `--flag value` are the same; the last one wins.

    A flag of kind CONFIG loads `PATH[:ARG]` and takes overrides `--config.a.b=value`, typed by the field's
    present value. A value that begins with ~ has the home folder in its place. `--help` prints a description and
    raises SystemExit(0). Every fault raises InputError.
    """
    line = _Line({**flags, **_COMMON}, program, positional)
    argv = ["--help" if token == "-h" else token for token in argv]
    source = _config_source(argv, line.config_flag)
    config = None if source is None else configuration.load(source)
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
    if values["help"]:
        _parser(line, config).print_help()
        raise SystemExit(errors.EXIT_DONE)
    _require(values, words, line)
    return Arguments(values, tuple(map(configuration.at_home, words)), source, overrides)


@dataclasses.dataclass(frozen=True)
class _Line:
    """What a program accepts."""

    flags: Mapping[str, Flag]
    program: str
    positional: Positional | None

    @property
    def config_flag(self) -> str | None:
        return next((name for name, flag in self.flags.items() if flag.kind is CONFIG), None)

    def usage(self) -> str:
        """One line with the mandatory flags plain and the others in brackets."""
        parts = [self.program]
        if self.positional:
            word = self.positional.name + ("" if self.positional.most == 1 else "...")
            parts.append(word if self.positional.least else f"[{word}]")
        for name, flag in self.flags.items():
            text = f"--{name}" if flag.kind is bool else f"--{name}={_placeholder(flag)}"
            parts.append(text if flag.required else f"[{text}]")
            if flag.kind is CONFIG:
                parts.append(f"[--{name}.FIELD=VALUE ...]")
        return " ".join(parts)


def _placeholder(flag: Flag) -> str:
    if flag.choices:
        return "{" + ",".join(flag.choices) + "}"
    return "PATH[:ARG]" if flag.kind is CONFIG else flag.kind.__name__.upper().replace("STR", "TEXT")


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


def _parser(line: _Line, config: ml_collections.ConfigDict | None) -> argparse.ArgumentParser:
    """A parser that leaves values as text, so that every fault can be said in our words."""
    hint = f"--{line.config_flag}=PATH --help lists the fields of that configuration"
    parser = argparse.ArgumentParser(
        usage=_literally(line.usage()),
        epilog=hint if line.config_flag and config is None else None,
        formatter_class=functools.partial(argparse.HelpFormatter, max_help_position=48, width=_HELP_COLUMNS),
        argument_default=argparse.SUPPRESS,
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    if line.positional:
        words = parser.add_argument_group("words")
        words.add_argument(_WORDS, metavar=line.positional.name, nargs="*", help=_literally(line.positional.help))
    group = parser.add_argument_group("flags")
    for name, flag in line.flags.items():
        default = "" if flag.default in (None, False, "") else f" (default {flag.default})"
        group.add_argument(f"--{name}", dest=name, metavar="", help=_literally(flag.help + default))
    group = parser.add_argument_group("fields of the configuration and their values")
    for name, value in _fields(line, config).items():
        group.add_argument(f"--{name}", dest=name, metavar="", help=_literally(_shown(value)))
    return parser


def _literally(text: str) -> str:
    """For argparse, which expands `%` in help texts."""
    return text.replace("%", "%%")


def _fields(line: _Line, config: ml_collections.ConfigDict | None) -> dict[str, Any]:
    """The configuration's fields as flags, such as `config.optimizer.lr`."""
    return {} if config is None else dict(configuration.fields(config, f"{line.config_flag}."))


def _with_values(argv: Sequence[str], line: _Line, config: ml_collections.ConfigDict | None) -> list[str]:
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


def _refuse(token: str, line: _Line, config: ml_collections.ConfigDict | None) -> NoReturn:
    """InputError for a token that looks like a flag but is none."""
    known = ", ".join(f"--{name}" for name in line.flags)
    if not token.startswith("--"):
        raise errors.InputError(f"flags have two dashes: {token} is none of {known}")
    name = token.removeprefix("--").partition("=")[0]
    base, dot, field = name.partition(".")
    if dot and base == line.config_flag:
        if config is None:
            raise errors.InputError(f"--{name} overrides a configuration that was not given: add --{base}=PATH")
        configuration.override(config, field, "", prefix=f"{base}.")  # says what is wrong with it
    near = difflib.get_close_matches(base, line.flags, n=1)
    hint = f"did you mean --{near[0]}?" if near else f"the flags are {known}"
    raise errors.InputError(f"there is no flag --{base}; {hint}")


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


def _require(values: Mapping[str, Any], words: Sequence[str], line: _Line) -> None:
    usage = f"usage: {line.usage()}"
    for name, flag in line.flags.items():
        if flag.required and values[name] in (None, ""):
            raise errors.InputError(f"--{name} is missing; {usage}")
    least, most = (line.positional.least, line.positional.most) if line.positional else (0, 0)
    if len(words) < least:
        raise errors.InputError(f"{line.positional.name} is missing; {usage}")
    if most is not None and len(words) > most:
        raise errors.InputError(f"unexpected word {words[most]!r}; {usage}")


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(str(item) for item in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
