"""How well a run uses its devices: model FLOP utilisation, memory, and time in which they wait for data."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from voc2vec_jax.planning import chips
from voc2vec_jax.runs import memory

FIELDS = ("step_seconds", "mfu", "memory_bytes", "data_wait_share")


class Efficiency:
    """Counts from one step to the next, which took `step_seconds`.

    `mfu` is the arithmetic of the model's products, padding included, over what all devices could do in the time of the
    step; None where the peak of the devices is unknown. Recomputation and the optimizer do not count as arithmetic.
    `memory_bytes` is the most that a device of this process has had in use; with CPUs, what the process holds now.
    `data_wait_share` is the share of the step in which a batch was waited for that devices needed already.
    """

    def __init__(self, dtype: str, matmul_precision: str) -> None:
        chip = chips.of_kind(jax.devices()[0].device_kind)
        self._peak = chip and jax.device_count() * chip.flops(dtype, matmul_precision)
        self._waited = 0.0  # seconds since the last step's end
        self._sums: dict[str, list[float]] = {}  # of the fields since `summary`: total and number of values

    def batches(self, batches: Iterable[Any], idle: Callable[[], bool]) -> Iterator[Any]:
        """The batches. A wait counts when the devices are `idle` at its end, all of it: an upper bound."""
        source, end = iter(batches), object()
        while True:
            start = time.monotonic()
            batch = next(source, end)
            if batch is end:
                return
            if idle():
                self._waited += time.monotonic() - start
            yield batch

    def restart(self) -> None:
        """The time until now belongs to no step."""
        self._waited = 0.0

    def of_step(self, flops: float, seconds: float) -> dict[str, float | int | None]:
        """The fields of a step's row, which did `flops` operations in `seconds`."""
        waited, self._waited = self._waited, 0.0
        mfu = None if self._peak is None else flops / seconds / self._peak
        share = min(1.0, waited / seconds)
        row = {"step_seconds": seconds, "mfu": mfu, "memory_bytes": memory.bytes_used(), "data_wait_share": share}
        for name, value in row.items():
            if value is not None:
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = [total + value, count + 1]
        return row

    def summary(self) -> str:
        """The means since the last summary in words; a dash is unknown."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        mfu = f"{means['mfu']:.1%}" if "mfu" in means else "-"
        used = f"{means['memory_bytes'] / 1e9:.2f} GB" if "memory_bytes" in means else "-"
        waiting = f"{means['data_wait_share']:.1%}" if "data_wait_share" in means else "-"
        return f"model FLOP utilisation {mfu}, memory {used}, waiting for data {waiting} of the time"
