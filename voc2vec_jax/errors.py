"""The two kinds of failure a user meets, and the exit statuses that go with them."""

EXIT_DONE = 0
EXIT_FAULT = 1
EXIT_INPUT = 2
EXIT_STOPPED = 75  # a signal stopped the run with everything saved; a scheduler may requeue it


class InputError(ValueError):
    """A fault of the input or the command line: one sentence with the value at fault and the remedy."""


class RunError(RuntimeError):
    """A fault of the run itself: one sentence with the value at fault and the remedy."""
