"""The two kinds of failure that a user meets, the exit statuses of programs, and numbers in sentences."""

from voc2vec_jax import printable

EXIT_DONE = 0
EXIT_FAULT = 1
EXIT_INPUT = 2
EXIT_STOPPED = 75  # stopped by a signal with everything saved; a scheduler may requeue the run


class InputError(ValueError):
    """A fault of the input or the command line, in one sentence: the value at fault and the remedy.

    It is shown on one line, whatever it quotes, as `printable.line` writes it.
    """

    def __init__(self, sentence: str = ""):
        super().__init__(printable.line(str(sentence)))


class RunError(RuntimeError):
    """A fault of the run itself, in one sentence: the value at fault and the remedy; shown as an InputError."""

    def __init__(self, sentence: str = ""):
        super().__init__(printable.line(str(sentence)))


def counted(number: int, thing: str) -> str:
    """1 fold, 2 folds, 1,000 folds."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
