"""The program `voc2vec`: `voc2vec COMMAND [FLAGS]`."""

import difflib
import functools
import importlib.util
import sys
from collections.abc import Sequence
from typing import NoReturn

from voc2vec_jax import errors, printable
from voc2vec_jax.programs import COMMANDS, Command
from voc2vec_jax.runs import program, versions


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of a command line (without the program's name; None: that of this process)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS.get(argv[0]) if argv else None
    if command is None and argv[:1] == ["help"] and argv[1:2] and not argv[1].startswith("-"):
        return main([argv[1], "--help"])
    if command is None:
        return program.run(_without_command, argv)
    alone = not command.many_processes or importlib.util.find_spec("jax") is None  # `load` then says what is missing
    return program.run(functools.partial(_alone if alone else _with_others, command), argv[1:])


def command() -> NoReturn:
    """The program of this process, to its end."""
    program.leave(main())


def _alone(command: Command, argv: list[str]) -> int | None:
    return command.load().main(argv)


def _with_others(command: Command, argv: list[str]) -> int:
    # Here, because a list of commands does not wait for JAX, and a stop during its import is a stop as any.
    from voc2vec_jax.runs import distributed

    return distributed.guarded(functools.partial(_alone, command), argv)


def _without_command(argv: list[str]) -> int:
    """Help and version; InputError for a command that there is not."""
    word = argv[0] if argv else "--help"
    if word in ("--help", "-h", "help"):
        printable.show(text())
    elif word in ("--version", "-V", "version"):
        printable.show(versions.line())
    elif word.startswith("-"):
        raise errors.InputError(
            f"a command comes first, as in voc2vec train {word}; the commands are {', '.join(COMMANDS)}"
        )
    else:
        near = difflib.get_close_matches(word, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        raise errors.InputError(f"there is no command {word}; {hint}")
    return errors.EXIT_DONE


def text() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: voc2vec COMMAND [--FLAG=VALUE ...]",
            "",
            *rows,
            "",
            "voc2vec COMMAND --help   its flags, the fields of its recipe, and examples",
            "voc2vec doctor           what is installed and what is missing",
            "voc2vec --version",
        ]
    )


if __name__ == "__main__":
    command()
