"""One worker of an evaluation: it computes parts of the list on all local devices and writes their files.

A part is a run of consecutive items. Its batches hold windows of no other part, so its rows depend on it alone, and any
division of the parts over workers gives the same files.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from typing import Any

import jax
import numpy as np
import tqdm

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import file_states
from voc2vec_jax.inference import batch_sizes, batching, prefetch, pretrained, windowing
from voc2vec_jax.inference.evaluation import again, recordings
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.inference.evaluation import rows as evaluation_rows
from voc2vec_jax.runs import sharding

LEAST_PART, MOST_PART, MOST_FRAMED_PART, PARTS = 64, 4096, 512, 64
OVERLAP_SECONDS = 2.0  # of the windows of a long recording
AHEAD = 2  # batches ready on the device
CHUNK = 4  # items that a thread reads at a time
THREADS = min(16, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What is computed of every item. Zero means the default."""

    kind: str = "embeddings"  # or "probabilities" or "timeline"
    layers: Any = -1  # a number, numbers or "all"
    pool: str = "mean"  # "mean", "max", "first", or "none" to keep every frame
    window_seconds: float = 0.0  # default 30, for a timeline 4
    hop_seconds: float = 0.0  # of a timeline; default half a window
    batch_seconds: float = 0.0  # audio computed at once on each device; default by platform
    part_files: int = 0  # items in a part; default by the length of the list
    store_dtype: str = "float32"
    threads: int = THREADS
    how: audio.Reading = audio.DEFAULT  # how recordings are read

    @property
    def window(self) -> float:
        return self.window_seconds or (4.0 if self.kind == "timeline" else 30.0)

    @property
    def hop(self) -> float:
        return self.hop_seconds or self.window / 2


@dataclasses.dataclass
class Tally:
    """What a worker has done."""

    parts: int = 0
    items: int = 0
    unusable: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0
    compilations: int = 0
    shapes: int = 0

    def __str__(self) -> str:
        rate = self.audio_seconds / max(self.seconds, 1e-9)
        return (
            f"{errors.counted(self.items, 'recording')} ({self.unusable:,} unusable) in "
            f"{errors.counted(self.parts, 'part')}, "
            f"{self.audio_seconds:,.0f} s of audio in {self.seconds:,.1f} s: {rate:,.0f} audio seconds per second; "
            f"{errors.counted(self.compilations, 'shape')} compiled (of at most {self.shapes})"
        )


def describe(model: pretrained.Model, items: evaluation_inputs.Items, settings: EvaluationSettings) -> dict[str, Any]:
    """The contents of evaluation.json: everything that a row depends on. InputError for settings that make no sense."""
    _check(settings)
    depth = model.config.encoder.depth
    numbers = model.layer_numbers(settings.layers) if settings.kind == "embeddings" else ()
    layers = [min(layer, depth) for layer in numbers]
    if len(set(layers)) < len(layers):
        raise errors.InputError(f"--layers={settings.layers} names layer {max(layers, key=layers.count)} twice")
    if settings.kind != "embeddings":
        model.logits()  # refuses a model without a head
    return {
        "kind": settings.kind,
        "rows": len(items),
        "items": items.fingerprint,
        "weights": model.fingerprint,
        "layers": layers,
        "pool": settings.pool if settings.kind == "embeddings" else None,
        "width": model.config.encoder.width,
        "classes": list(model.labels) if settings.kind != "embeddings" else [],
        **_target(model, settings),
        "dtype": model.config.encoder.dtype,
        "attention": model.config.encoder.attention,
        "store_dtype": settings.store_dtype,
        "window_seconds": settings.window,
        "hop_seconds": settings.hop if settings.kind == "timeline" else None,
        "batch_seconds": settings.batch_seconds or "by platform",
        "part_files": settings.part_files or part_files(len(items), framed=settings.pool == "none"),
        "frame_rate_hz": float(model.frame_rate_hz),
        **settings.how._asdict(),
        "voc2vec_jax": metadata.version("voc2vec_jax"),
        "model": model.name,
        "input": items.name,
    }


def part_files(items: int, *, framed: bool) -> int:
    """How many of so many items a part holds by default; with every frame kept, `framed`, a row is far larger."""
    return max(LEAST_PART, min(MOST_FRAMED_PART if framed else MOST_PART, -(-items // PARTS)))


def _target(model: pretrained.Model, settings: EvaluationSettings) -> dict[str, str]:
    """What the head's outputs say, where that is not the probability of one class, which goes without saying."""
    kind = model.checkpoint.kind
    return {} if settings.kind == "embeddings" or kind == "classes" else {"target": kind}


def _check(settings: EvaluationSettings) -> None:
    for name, value, allowed in (
        ("pool", settings.pool, ("mean", "max", "first", "none")),
        ("store_dtype", settings.store_dtype, ("float32", "float16")),
    ):
        if value not in allowed:
            raise errors.InputError(f"--{name}={value} is none of {', '.join(allowed)}")
    for name in ("window_seconds", "hop_seconds", "batch_seconds", "part_files"):
        if not 0 <= getattr(settings, name) < float("inf"):
            raise errors.InputError(f"--{name}={getattr(settings, name)}: give a positive number")
    if settings.threads < 1:
        raise errors.InputError(f"--threads={settings.threads}: give 1 or more")
    if settings.kind != "embeddings":
        for name, default in (("layers", (-1, [-1])), ("pool", ("mean",)), ("store_dtype", ("float32",))):
            if (given := getattr(settings, name)) not in default:
                raise errors.InputError(f"--{name}={given} is for vectors, not for class probabilities: leave it out")
    if settings.kind != "timeline" and settings.hop_seconds:
        raise errors.InputError(f"--hop_seconds={settings.hop_seconds} is for sliding windows: add --timeline")
    if not settings.hop <= settings.window:
        raise errors.InputError(
            f"--hop_seconds={settings.hop} is more than --window_seconds={settings.window}: windows would leave gaps"
        )


def layout_of(
    model: pretrained.Model,
    items: evaluation_inputs.Items,
    settings: EvaluationSettings,
    devices: int,
    platform: str,
) -> windowing.WindowLayout:
    """The windows and static shapes of an evaluation on so many devices of a platform."""
    timeline = settings.kind == "timeline"
    overlap = 0.0 if timeline else min(OVERLAP_SECONDS, settings.window / 4)
    # The windows of a timeline all have one length.
    known = ([], 1.0) if timeline else items.lengths()
    seconds = settings.batch_seconds or batch_sizes.batch_seconds(platform)
    return model.layout(known, settings.window, overlap, seconds, devices, platform)


class Worker:
    """Computes parts of an evaluation on all local devices."""

    def __init__(
        self,
        model: pretrained.Model,
        items: evaluation_inputs.Items,
        output: evaluation_output.OutputFolder,
        settings: EvaluationSettings,
    ):
        """InputError for durations that fit no window."""
        self._items, self._output, self._settings = items, output, settings
        self._timeline = settings.kind == "timeline"
        encoder = model.config.encoder
        devices = jax.local_devices()
        self._seconds = settings.batch_seconds or batch_sizes.batch_seconds(model.platform)
        self._layout = layout_of(model, items, settings, len(devices), model.platform)
        self._cut = self._layout.windows
        if self._timeline:
            window, hop = (round(s * audio.RATE_HZ) for s in (settings.window, settings.hop))
            self._cut = windowing.sliding(window, max(1, hop), lambda samples: int(encoder.frames(samples)))
        self._reader = recordings.Reader(
            items, self._cut, self._layout.least_samples, model.eps, self._timeline, settings.how
        )
        self._due: dict[int, set[int]] = {}  # rows to compute of each part that is in work
        self._states: dict[int, tuple[int, int]] = {}  # of the files of the items that were read
        self._columns = evaluation_rows.Columns(output.description, self._layout.hop_samples, encoder.middle_samples)
        mesh = sharding.make_mesh(devices=devices)
        self._model = model.spread(mesh)
        self._put = functools.partial(jax.device_put, device=sharding.over_batch(mesh, 0))
        self._compute = self._computer()

    def _computer(self) -> Callable[[batching.Batch], jax.Array]:
        if self._settings.kind != "embeddings":
            return self._model.logits()
        pool = None if self._settings.pool == "none" else self._settings.pool
        return self._model.features(self._model.layer_numbers(self._settings.layers), pool)

    def run(self, numbers: Sequence[int]) -> Tally:
        """Computes and writes the parts of these numbers that are not done, or the marked rows of those that are."""
        start = time.perf_counter()
        tally = Tally(shapes=self._layout.shapes)
        total = sum(self._due_items(number) for number in numbers)
        with (
            concurrent.futures.ThreadPoolExecutor(self._settings.threads) as pool,
            contextlib.closing(self._computed(numbers, pool)) as results,
            tqdm.tqdm(total=total, unit=" files", disable=not sys.stderr.isatty()) as bar,
        ):
            try:
                for part, group in itertools.groupby(results, key=lambda result: result.part):
                    self._write(part, group, functools.partial(self._advance, bar, tally, start))
                    tally.parts += 1
                    tally.unusable += len(part.unusable)
            except jax.errors.JaxRuntimeError as fault:
                if "RESOURCE_EXHAUSTED" not in str(fault):
                    raise
                raise errors.RunError(
                    f"batches of {self._seconds:g} s of audio do not fit into the device's memory: give a smaller "
                    "--batch_seconds and another --output"
                ) from fault
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        tally.seconds, tally.compilations = time.perf_counter() - start, self._model.compilations
        return tally

    def _advance(self, bar: tqdm.tqdm, tally: Tally, start: float, samples: int) -> None:
        tally.items += 1
        tally.audio_seconds += samples / audio.RATE_HZ
        bar.set_postfix_str(
            f"{tally.audio_seconds / (time.perf_counter() - start):,.0f} audio seconds/s", refresh=False
        )
        bar.update()

    def _computed(self, numbers: Sequence[int], pool: concurrent.futures.Executor) -> Iterator[batching.Computed]:
        parts = self._parts(numbers, pool)
        return batching.computed(parts, self._layout, self._compute, put=self._put, ahead=AHEAD)

    def _parts(self, numbers: Sequence[int], pool: concurrent.futures.Executor) -> Iterator[batching.Part]:
        """Those of the parts that nobody has done by the time they are due."""
        for number in numbers:
            items = self._items_of(number)
            if self._output.part(number).exists():
                marked = set(again.rows_of(self._output, number).tolist())
                items = [item for item in items if item.row in marked]
            if items:
                self._due[number] = {item.row for item in items}
                yield batching.Part(self._recordings(items, pool), number)

    def _due_items(self, number: int) -> int:
        size = self._output.description["part_files"]
        if self._output.part(number).exists():
            return len(again.rows_of(self._output, number))
        return min(size, len(self._items) - number * size)

    def _items_of(self, number: int) -> list[evaluation_inputs.Item]:
        size = self._output.description["part_files"]
        return self._items.rows(number * size, min((number + 1) * size, len(self._items)))

    def _recordings(
        self, items: list[evaluation_inputs.Item], pool: concurrent.futures.Executor
    ) -> Iterator[tuple[int, batching.Recording | errors.InputError]]:
        read = prefetch.in_order(self._read, items, pool, chunk=CHUNK, chunks=self._settings.threads)
        for item, (state, recording) in zip(items, read, strict=True):
            self._states[item.row] = state
            yield item.row, recording

    def _read(self, item: evaluation_inputs.Item) -> tuple[tuple[int, int], batching.Recording | errors.InputError]:
        file = self._items.file
        state = file_states.of_file(file(item)) if file else file_states.NO_FILE  # before it is read
        return state, self._reader.read(item)

    def _write(self, part: batching.Part, results: Iterable[batching.Computed], advance: Callable[[int], None]) -> None:
        """The files of a part; the one that says that it is done comes last. Rows that were not due stay."""
        number, items, due = part.number, self._items_of(part.number), self._due.pop(part.number)
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(evaluation_output.whole(self._output.part(number)))
            windows = self._timeline_writer(number, stack)
            with contextlib.closing(evaluation_rows.PartWriter(path, self._columns, items)) as rows:
                if len(due) < len(items):
                    rows.copy(self._output.part(number), due)
                    if windows:
                        windows.copy(self._output.timeline(number), self._output.windows(number), due)
                for row, value in self._collector().collect(results):
                    samples = part.samples[row]
                    if not self._columns.holds(value):
                        part.unusable[row] = self._not_finite(value)
                        continue
                    rows.add(row, samples / audio.RATE_HZ, value)
                    if windows:
                        windows.add(items[row - items[0].row], samples, value)
                    advance(samples)
            for kind, found in (("errors", _error_rows(part, items)), ("remarks", _remark_rows(part, items))):
                self._output.write_rows(kind, number, again.merged(self._output.rows(kind, number), found, due))
            states = {row: self._states.pop(row) for row in due}
            again.save_states(self._output, number, self._items, items, states)
        again.unmark(self._output, number, due)
        for _ in part.unusable:
            advance(0)

    def _collector(self) -> batching.Collector:
        pool = self._settings.pool
        whole = {"timeline": _stacked, "probabilities": batching.join_logits}.get(self._settings.kind)
        return batching.Collector(None if pool == "none" else pool, whole)

    def _not_finite(self, value: np.ndarray) -> errors.InputError:
        """Why a result cannot be stored."""
        if np.isfinite(value).all():
            return errors.InputError(
                f"its vectors reach {np.abs(value).max():.3g}, beyond float16: give --store_dtype=float32"
            )
        dtype = self._model.config.encoder.dtype
        narrow = f" (--dtype={dtype} may be too narrow)" if dtype != "float32" else ""
        return errors.InputError(f"the model computes values for it that are not finite{narrow}")

    def _timeline_writer(self, number: int, stack: contextlib.ExitStack) -> evaluation_rows.TimelineWriter | None:
        if not self._timeline:
            return None
        paths = (self._output.timeline(number), self._output.windows(number))
        own = [stack.enter_context(evaluation_output.whole(path)) for path in paths]
        writer = evaluation_rows.TimelineWriter(*own, self._columns, self._cut)
        return stack.enter_context(contextlib.closing(writer))


def _error_rows(part: batching.Part, items: list[evaluation_inputs.Item]) -> list[tuple[int, str, str, str]]:
    """Row, id, path and reason of each unusable item."""
    unusable = [(items[row - items[0].row], recordings.reason(fault)) for row, fault in part.unusable.items()]
    return [(item.row, item.id, evaluation_rows.shown(item.path), reason) for item, reason in unusable]


def _remark_rows(part: batching.Part, items: list[evaluation_inputs.Item]) -> list[tuple[int, str, str, str, str]]:
    """Row, id, path, kind and text of what is odd about usable items."""
    told = [
        (items[row - items[0].row], *remark)
        for row, told in sorted(part.told.items())
        if row not in part.unusable
        for remark in told.remarks
    ]
    return [(item.row, item.id, evaluation_rows.shown(item.path), kind, text) for item, kind, text in told]


def _stacked(windows: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """The logits of each window; behind them stands the weight that a join would need."""
    return np.stack([value[:-1] for _, value in windows])
