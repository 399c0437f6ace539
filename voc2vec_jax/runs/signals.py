"""Signals that ask a run to stop."""

import os
import signal
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The user insisted on leaving while a checkpoint was being written."""


class StopSignal:
    """Inside this context SIGTERM and SIGINT only set `requested` to the signal's name, for the loop to act on.

    A second SIGINT raises Interrupted (a KeyboardInterrupt). Main thread only; the handlers before are restored.
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
        """The signal that asks to stop after `step`, None to go on."""
        return self.requested

    def _handle(self, number: int, frame: object) -> None:
        name = signal.Signals(number).name
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise Interrupted
        if self.requested is None:
            self.requested = name
            # os.write: the signal may have come in the middle of a print
            os.write(2, f"\n{name}: leaving after this step with a checkpoint\n".encode())
