"""A pre-training run of as many updates as a real one, with a model so small that they end soon, watched from outside.

Everything else is real: the command line, prepared records on disk, the reader, rows, checkpoints, validations and
pictures. What grows with the number of updates shows as memory, open files, threads or time that is not flat.
"""

import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from voc2vec_jax import errors
from voc2vec_jax.runs import rows

ROOT = pathlib.Path(__file__).parents[2]
PROC = pathlib.Path("/proc")
POLL_SECONDS = 1.0
ROW_BYTES = 1500  # of metrics.jsonl, at most, the steps included that go by until an interval's end is seen
# How much larger the second half of a run may be than the first. Files and threads are looked at now and then only.
GROWTH = {"memory_mb": 1.02, "open_files": 1.15, "threads": 1.15, "step_ms": 1.2}
FIELDS = {
    "sets": "synthetic",
    "valid_share": 0.2,
    "crop_samples": 8000,
    "bucket_samples": "4000,8000",
    "group_rows": 1,
    "batch_seconds": 0.5,
    "groups_per_device": 1,
    "log_every_steps": 1000,
    "model.mask_frames": 3,
    "model.encoder.conv_channels": "2,2,2,2,2,2,2",
    "model.encoder.width": 4,
    "model.encoder.depth": 1,
    "model.encoder.heads": 1,
    "model.encoder.inner_width": 4,
    "model.encoder.positional_kernel": 4,
    "model.encoder.positional_groups": 1,
    "model.codebook_groups": 1,
    "model.codebook_entries": 4,
    "model.codebook_width": 4,
    "model.target_width": 4,
    "model.negatives": 4,
}


@dataclasses.dataclass(frozen=True)
class Soak:
    """How many updates, in how many intervals they are judged, and where; without a folder in a temporary one."""

    steps: int = 400_000
    intervals: int = 20
    every: int = 1000  # steps between validations and checkpoints
    workers: int = 0
    folder: str | None = None


@dataclasses.dataclass
class Interval:
    """The most that was seen of a process between two steps, and when its last step was seen."""

    first: int
    last: int
    memory_mb: float = 0.0
    open_files: int = 0
    threads: int = 0
    seconds: float = 0.0


def figures(settings: Soak) -> Iterator[dict[str, Any]]:
    """One figure for each interval, then one that says whether they stay alike. Linux only."""
    if not 3 <= settings.intervals <= settings.steps:
        raise errors.InputError(f"--intervals={settings.intervals} is not from 3 to --steps={settings.steps}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(settings.folder or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        for interval in _watched(settings, folder):
            found.append({**dataclasses.asdict(interval), **_times(folder / "run" / "metrics.jsonl", interval)})
            yield {"figure": f"soak steps {interval.first} to {interval.last}", **found[-1]}
        yield {"figure": "soak", **compared(found)}


def compared(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The second half of the intervals over the first half, by figure; `flat` where it is within `GROWTH`.

    Of a half the most counts, and of times the median. The first interval is left out: it compiles and fills caches.
    """
    middle = (1 + len(found)) // 2
    halves = found[1:middle], found[middle:]
    first, second = ({name: _of_half(name, [part[name] for part in half]) for name in GROWTH} for half in halves)
    ratios = {name: round(second[name] / first[name], 3) for name in GROWTH}
    return {
        "later_over_earlier": ratios,
        "memory_grown_mb": round(found[-1]["memory_mb"] - found[1]["memory_mb"], 1),
        "flat": {name: ratios[name] <= most for name, most in GROWTH.items()},
    }


def _of_half(name: str, values: Sequence[float]) -> float:
    return statistics.median(values) if name == "step_ms" else max(values)


def _watched(settings: Soak, folder: pathlib.Path) -> Iterator[Interval]:
    """The intervals of a run in RUN = `folder`/run, each as soon as it is over."""
    length = settings.steps // settings.intervals
    with open(folder / "run.log", "ab") as log:
        process = subprocess.Popen(_command(settings, folder), cwd=ROOT, env=_environment(), stdout=log, stderr=log)
    try:
        interval, start = Interval(1, length), time.monotonic()
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            step = _last_step(folder / "run" / "metrics.jsonl")
            if step > interval.last:
                yield interval
                start += interval.seconds
                interval = Interval(interval.last + 1, interval.last + length)
            _look(process.pid, interval)
            interval.seconds = round(time.monotonic() - start, 1)
        if process.returncode:
            raise errors.RunError(f"the run ended with status {process.returncode}: see {folder / 'run.log'}")
        yield interval
    finally:
        process.kill()
        process.wait()


def _command(settings: Soak, folder: pathlib.Path) -> list[str]:
    fields = {
        **FIELDS,
        "data_dir": folder / "data",
        "total_steps": settings.steps,
        "validate_every_steps": settings.every,
        "checkpoint_every_steps": settings.every,
        "workers": settings.workers,
    }
    words = [f"--config.{name}={value}" for name, value in fields.items()]
    program = [sys.executable, "-m", "voc2vec_jax.train", "--config=configs/voc125.py"]
    return [*program, f"--workdir={folder / 'run'}", *words]


def _environment() -> dict[str, str]:
    return {"JAX_PLATFORMS": "cpu", **os.environ}


def _last_step(metrics: pathlib.Path) -> int:
    tail = rows.tail(metrics, 4000) if metrics.is_file() else []
    return tail[-1]["step"] if tail else 0


def _look(pid: int, interval: Interval) -> None:
    """Take what the system says of a process and of its children, if it still lives."""
    try:
        family = [pid, *map(int, (PROC / f"{pid}/task/{pid}/children").read_text().split())]
        states = [(PROC / str(member) / "status").read_text() for member in family]
        files = sum(len(list((PROC / str(member) / "fd").iterdir())) for member in family)
    except OSError:
        return
    words = [dict(line.split(":", 1) for line in state.splitlines()) for state in states]
    memory = sum(int(state.get("VmRSS", "0 kB").split()[0]) for state in words) / 1000
    interval.memory_mb = max(interval.memory_mb, round(memory, 1))
    interval.open_files = max(interval.open_files, files)
    interval.threads = max(interval.threads, sum(int(state["Threads"]) for state in words))


def _times(metrics: pathlib.Path, interval: Interval) -> dict[str, float]:
    """Median, 99th percentile and maximum of the time from one step to the next, pauses left out, in ms."""
    found = rows.tail(metrics, ROW_BYTES * (interval.last - interval.first + 1))
    train = [row for row in found if "split" not in row and interval.first <= row["step"] <= interval.last]
    cuts = statistics.quantiles((row["step_seconds"] for row in train), n=100, method="inclusive")
    named = {"step_ms": cuts[49], "step_p99_ms": cuts[98], "step_most_ms": max(row["step_seconds"] for row in train)}
    return {name: round(1000 * value, 3) for name, value in named.items()}
