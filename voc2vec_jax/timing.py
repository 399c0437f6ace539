"""How long things take, each measured in the same way wherever it runs."""

import math
import time
from collections.abc import Callable
from typing import Any

WARMING = 2  # steps before those that count
TURN_SECONDS = 1.0  # that a turn of something quick lasts at least, so that starting and waiting count little


def seconds_of(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def steady_seconds(run: Callable[[int], Any], turn_seconds: float = TURN_SECONDS) -> float:
    """How long one of the steps takes that `run(count)` makes and waits for, right after others, as in training.

    Those before are not counted: memory that the system took back during the other side's turn is fetched anew. Of
    quick steps as many are made as fill `turn_seconds`.
    """
    for _ in range(WARMING):
        run(1)
    once = seconds_of(lambda: run(1))
    count = math.ceil(turn_seconds / once)
    return once if count <= 1 else seconds_of(lambda: run(count)) / count
