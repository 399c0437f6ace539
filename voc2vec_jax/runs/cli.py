"""The command line of every main: typed flags, a configuration file with overrides, exit statuses, signals."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.runs import configuration

CONFIG = ml_collections.ConfigDict  # the `kind` of the flag that names a configuration file


@dataclasses.dataclass(frozen=True)
class Flag:
    """One `--name=value`: `kind` is str, int, float, bool or CONFIG; an absent flag has its `default`."""

    help: str
    default: Any = None
    kind: type = str
    required: bool = False
    choices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Positional:
    """Words without a dash, such as `DATASET...`; `most` None is any number."""

    name: str
    help: str
    least: int = 1
    most: int | None = None


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What the command line said; every flag is also an attribute (`arguments.workdir`)."""

    values: Mapping[str, Any]
    words: tuple[str, ...] = ()
    config_source: str | None = None  # PATH[:ARG] as it was given
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
    argv: Sequence[str],
    *,
    flags: Mapping[str, Flag],
    program: str,
    positional: Positional | None = None,
) -> Arguments:
    """Read `argv` (without the program's name); `--flag=value` and `--flag value` mean the same, the last one wins.

    A flag of kind CONFIG loads `PATH[:ARG]` and takes overrides `--config.a.b=value`, typed by the field's
    present value. `--help` prints the usage and raises SystemExit(0); every fault is an InputError.
    """
    flags = {**flags, **_COMMON}
    argv = ["--help" if token == "-h" else token for token in argv]
    config, source = _configuration(argv, flags)
    values = {name: flag.default for name, flag in flags.items()}
    overrides: dict[str, str] = {}
    words = []
    for name, text in _tokens(argv, flags, config):
        if name is None:
            words.append(text)
        elif name in flags:
            values[name] = config if flags[name].kind is CONFIG else _flag_value(name, flags[name], text)
        else:
            field = name.split(".", 1)[1]
            configuration.override(config, field, text, prefix=f"{name.split('.', 1)[0]}.")
            overrides[field] = text
    if values["help"]:
        print(help_text(program, flags, positional, config))
        raise SystemExit(errors.EXIT_DONE)
    _require(values, words, flags, program, positional)
    return Arguments(values, tuple(words), source, overrides)


def _configuration(argv: Sequence[str], flags: Mapping[str, Flag]) -> tuple[Any, str | None]:
    """The configuration named on the command line, loaded before any override is read."""
    for name in (name for name, flag in flags.items() if flag.kind is CONFIG):
        source = None
        for token, following in zip(argv, [*argv[1:], "--"]):
            if token.startswith(f"--{name}="):
                source = token.split("=", 1)[1]
            elif token == f"--{name}" and not following.startswith("--"):
                source = following
        if source is not None:
            return configuration.load(source), source
    return None, None


def _tokens(
    argv: Sequence[str], flags: Mapping[str, Flag], config: ml_collections.ConfigDict | None
) -> Iterator[tuple[str | None, str]]:
    """Pairs of flag name and text; a word without a dash has the name None."""
    position = 0
    while position < len(argv):
        token = argv[position]
        position += 1
        if not token.startswith("-") or token == "-":
            yield None, token
            continue
        name, equals, text = token.removeprefix("--").partition("=")
        is_bool = _check_name(token, name, flags, config)
        if not equals:
            following = argv[position] if position < len(argv) else None
            if is_bool and (following is None or following.lower() not in ("true", "false")):
                text = "true"
            elif following is None or following.startswith("--"):
                raise errors.InputError(f"--{name} needs a value: give --{name}=VALUE")
            else:
                text = following
                position += 1
        yield name, text


def _check_name(token: str, name: str, flags: Mapping[str, Flag], config: Any) -> bool:
    """Whether the flag is a bool; an InputError if there is no such flag or field."""
    if not token.startswith("--"):
        raise errors.InputError(f"flags have two dashes: {token} is none of {_dashed(flags)}")
    if name in flags:
        return flags[name].kind is bool
    base, dot, field = name.partition(".")
    if dot and base in flags and flags[base].kind is CONFIG:
        if config is None:
            raise errors.InputError(f"--{name} overrides a configuration that was not given: add --{base}=PATH")
        return isinstance(configuration.find(config, field, f"{base}.")[1], bool)
    near = difflib.get_close_matches(base, flags, n=1)
    hint = f"did you mean --{near[0]}?" if near else f"the flags are {_dashed(flags)}"
    raise errors.InputError(f"there is no flag --{base}; {hint}")


def _dashed(flags: Mapping[str, Flag]) -> str:
    return ", ".join(f"--{name}" for name in flags)


def _flag_value(name: str, flag: Flag, text: str) -> Any:
    value = configuration.parse_value(f"--{name}", text, flag.kind)
    if flag.choices and value not in flag.choices:
        near = difflib.get_close_matches(text, flag.choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise errors.InputError(f"--{name}={text} is none of {', '.join(flag.choices)}{hint}")
    return value


def _require(
    values: Mapping[str, Any],
    words: Sequence[str],
    flags: Mapping[str, Flag],
    program: str,
    positional: Positional | None,
) -> None:
    line = usage(program, flags, positional)
    for name, flag in flags.items():
        if flag.required and values[name] in (None, ""):
            raise errors.InputError(f"--{name} is missing; {line}")
    least, most = (positional.least, positional.most) if positional else (0, 0)
    if len(words) < least:
        raise errors.InputError(f"{positional.name} is missing; {line}")
    if most is not None and len(words) > most:
        raise errors.InputError(f"unexpected word {words[most]!r}; {line}")


def usage(program: str, flags: Mapping[str, Flag], positional: Positional | None = None) -> str:
    """One line with the mandatory flags plain and the others in brackets."""
    parts = []
    if positional:
        word = positional.name + ("" if positional.most == 1 else "...")
        parts.append(word if positional.least else f"[{word}]")
    for name, flag in flags.items():
        text = f"--{name}" if flag.kind is bool else f"--{name}={_placeholder(flag)}"
        parts.append(text if flag.required else f"[{text}]")
        if flag.kind is CONFIG:
            parts.append(f"[--{name}.FIELD=VALUE ...]")
    return f"usage: {program} {' '.join(parts)}"


def _placeholder(flag: Flag) -> str:
    if flag.choices:
        return "{" + ",".join(flag.choices) + "}"
    return "PATH[:ARG]" if flag.kind is CONFIG else flag.kind.__name__.upper().replace("STR", "TEXT")


def help_text(
    program: str,
    flags: Mapping[str, Flag],
    positional: Positional | None = None,
    config: ml_collections.ConfigDict | None = None,
) -> str:
    """Usage, flags, and the fields of `config` with their values."""
    rows = [(positional.name, positional.help)] if positional else []
    for name, flag in flags.items():
        default = "" if flag.default in (None, False, "") else f" (default {flag.default})"
        rows.append((f"--{name}", flag.help + default))
    lines = [usage(program, flags, positional), "", *_columns(rows)]
    if config is not None:
        shown = [(f"--config.{name}", _shown(value)) for name, value in configuration.fields(config)]
        lines += ["", "fields of the configuration and their values:", *_columns(shown)]
    elif any(flag.kind is CONFIG for flag in flags.values()):
        lines += ["", "--config=PATH --help lists the fields of that configuration"]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(str(item) for item in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(left) for left, _ in rows)
    return [f"  {left:<{width}}  {right}".rstrip() for left, right in rows]
