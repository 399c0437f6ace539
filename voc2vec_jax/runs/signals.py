"""Signals that ask a run to stop."""

import contextlib
import os
import signal
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The user sent a second SIGINT while the run was leaving with a checkpoint."""


class StopSignal:
    """Inside this context, SIGTERM and SIGINT only set `requested` to the signal's name; the loop acts on it.

    A second SIGINT raises Interrupted. Main thread only. The previous handlers are restored at the end.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def at(self, step: int) -> str | None:
        """The signal that asks to stop after `step`; None to go on."""
        return self.requested

    def _handle(self, number: int, frame: object) -> None:
        name = signal.Signals(number).name
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise Interrupted
        if self.requested is None:
            self.requested = name
            # not `print`, because the signal may have interrupted one
            with contextlib.suppress(OSError):  # nobody reads any more
                os.write(2, f"\n{name}: leaving after this step with a checkpoint\n".encode())
