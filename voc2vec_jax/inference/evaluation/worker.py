"""Recordings to rows: parts of a list, each computed by itself, while what comes next is read and sent ahead.

A part is a run of consecutive items. Its rows depend on it alone (its batches hold nothing else), so that any division
of the parts over workers gives the same files.
"""

import collections
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
from voc2vec_jax.inference import batching, prefetch, pretrained
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.inference.evaluation import recordings
from voc2vec_jax.inference.evaluation import rows as evaluation_rows
from voc2vec_jax.ops import masking
from voc2vec_jax.runs import sharding

LEAST_PART, MOST_PART, MOST_FRAMED_PART, PARTS = 64, 4096, 512, 64
OVERLAP_SECONDS = 2.0  # of the windows in which a long recording is computed
AHEAD = 2  # batches that are ready on the device
RUNNING = 2  # batches that are computed or waited for
THREADS = min(16, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What is asked of every item. Zeros stand for defaults."""

    kind: str = "embeddings"  # of evaluation_rows.KINDS
    layers: Any = -1  # a number, numbers or "all"
    pool: str = "mean"  # "mean", "max", "first" | "none": every frame
    window_seconds: float = 0.0  # 30; of a timeline 4
    hop_seconds: float = 0.0  # of a timeline; half a window
    batch_seconds: float = 0.0  # of audio computed at once on each device; by platform
    part_files: int = 0  # items in a part; by the length of the list
    store_dtype: str = "float32"
    threads: int = THREADS

    @property
    def window(self) -> float:
        return self.window_seconds or (4.0 if self.kind == "timeline" else 30.0)

    @property
    def hop(self) -> float:
        return self.hop_seconds or self.window / 2


@dataclasses.dataclass
class Tally:
    """What a worker did."""

    parts: int = 0
    items: int = 0
    unusable: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0
    compilations: int = 0
    shapes: int = 0


@dataclasses.dataclass
class Part:
    """Consecutive items, and what reading them found: lengths, and reasons why some cannot be used."""

    number: int
    items: list[evaluation_inputs.Item]
    samples: dict[int, int] = dataclasses.field(default_factory=dict)
    unusable: dict[int, str] = dataclasses.field(default_factory=dict)


def describe(model: pretrained.Model, items: evaluation_inputs.Items, settings: EvaluationSettings) -> dict[str, Any]:
    """What the output folder says of itself: everything that a row depends on. InputError for senseless settings."""
    _check(settings)
    depth = model.config.encoder.depth
    numbers = model.layer_numbers(settings.layers) if settings.kind == "embeddings" else ()
    layers = [min(layer, depth) for layer in numbers]
    if len(set(layers)) < len(layers):
        raise errors.InputError(f"--layers={settings.layers} names layer {max(layers, key=layers.count)} twice")
    if settings.kind != "embeddings":
        model.logits()  # refuses a model without a head
    most = MOST_FRAMED_PART if settings.pool == "none" else MOST_PART
    return {
        "kind": settings.kind,
        "rows": len(items),
        "items": items.fingerprint,
        "weights": model.fingerprint,
        "layers": layers,
        "pool": settings.pool if settings.kind == "embeddings" else None,
        "width": model.config.encoder.width,
        "classes": list(model.labels) if settings.kind != "embeddings" else [],
        "dtype": model.config.encoder.dtype,
        "attention": model.config.encoder.attention,
        "store_dtype": settings.store_dtype,
        "window_seconds": settings.window,
        "hop_seconds": settings.hop if settings.kind == "timeline" else None,
        "batch_seconds": settings.batch_seconds or "by platform",
        "part_files": settings.part_files or max(LEAST_PART, min(most, -(-len(items) // PARTS))),
        "frame_rate_hz": float(model.frame_rate_hz),
        "voc2vec_jax": metadata.version("voc2vec_jax"),
        "model": model.name,
        "input": items.name,
    }


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
        self._seconds = settings.batch_seconds or pretrained.default_batch_seconds()
        overlap = 0.0 if self._timeline else min(OVERLAP_SECONDS, settings.window / 4)
        # The windows of a timeline have one length
        known = ([], 1.0) if self._timeline else items.lengths()
        self._layout = model.layout(known, settings.window, overlap, self._seconds, len(devices))
        self._cut = self._layout.windows
        if self._timeline:
            window, hop = (round(s * audio.RATE_HZ) for s in (settings.window, settings.hop))
            self._cut = recordings.sliding(window, max(1, hop), lambda samples: int(encoder.frames(samples)))
        self._reader = recordings.Reader(items, self._cut, self._layout.least_samples, model.eps, self._timeline)
        field = masking.samples_for_frames(1, encoder.conv_kernels, encoder.conv_strides)
        self._columns = evaluation_rows.Columns(output.description, self._layout.hop_samples, field)
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
        """Makes those of the parts that are not done."""
        size, start = self._output.description["part_files"], time.perf_counter()
        tally = Tally(shapes=self._layout.shapes)
        total = sum(min(size, len(self._items) - number * size) for number in numbers)
        with (
            concurrent.futures.ThreadPoolExecutor(self._settings.threads) as pool,
            contextlib.closing(self._results(numbers, pool)) as results,
            tqdm.tqdm(total=total, unit=" files", disable=not sys.stderr.isatty()) as bar,
        ):
            try:
                for part, group in itertools.groupby(results, key=lambda result: result[0]):
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

    def _results(self, numbers: Sequence[int], pool: concurrent.futures.Executor) -> Iterator[tuple]:
        """(part, pieces, values) of each batch; at the end of a part (part, [], None)."""
        waiting: collections.deque = collections.deque()
        with prefetch.ahead(self._batches(numbers, pool), AHEAD) as coming:
            for part, batch in coming:
                waiting.append((part, batch.pieces, self._compute(batch)) if batch else (part, [], None))
                if len(waiting) > RUNNING:
                    yield waiting.popleft()
            yield from waiting

    def _batches(
        self, numbers: Sequence[int], pool: concurrent.futures.Executor
    ) -> Iterator[tuple[Part, batching.Batch | None]]:
        """Batches on the devices, part by part, and None behind the last of each."""
        size = self._output.description["part_files"]
        for number in numbers:
            if self._output.part(number).exists():
                continue
            part = Part(number, self._items.rows(number * size, min((number + 1) * size, len(self._items))))
            for batch in batching.batches(self._pieces(part, pool), self._layout):
                arrays = self._put((batch.audio, batch.lengths, batch.kept))
                yield part, batching.Batch(batch.pieces, *arrays)
            yield part, None

    def _pieces(self, part: Part, pool: concurrent.futures.Executor) -> Iterator[batching.Piece]:
        read = recordings.read_all(self._reader.read, part.items, pool, self._settings.threads)
        for item, clip in zip(part.items, read, strict=True):
            if isinstance(clip, str):
                part.unusable[item.row] = clip
                continue
            part.samples[item.row] = clip.samples
            try:
                for number, (window, wave) in enumerate(zip(clip.windows, clip.audio, strict=True)):
                    yield batching.Piece(item.row, number, wave, window.first, window.last, len(clip.windows))
            except errors.InputError as fault:  # a long recording is read while its windows are taken
                part.unusable[item.row] = recordings.reason(fault)

    def _write(self, part: Part, results: Iterable[tuple], advance: Callable[[int], None]) -> None:
        """The files of a part; the one that says that it is done comes last."""
        first = part.items[0].row
        pool = self._settings.pool
        whole = _stacked if self._timeline else None
        collector = batching.Collector(None if pool == "none" else pool, whole)
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(evaluation_output.whole(self._output.part(part.number)))
            windows = self._timeline_writer(part, stack)
            with contextlib.closing(evaluation_rows.PartWriter(path, self._columns, part.items)) as rows:
                for _, pieces, values in results:
                    for row, value in collector.add(pieces, np.asarray(values)) if pieces else ():
                        samples = part.samples[row]
                        if not self._columns.holds(value):
                            part.unusable[row] = self._not_finite(value)
                            continue
                        rows.add(row, samples / audio.RATE_HZ, value)
                        if windows:
                            windows.add(part.items[row - first], samples, value)
                        advance(samples)
            unusable = [(row, part.items[row - first], reason) for row, reason in part.unusable.items()]
            self._output.write_errors(
                part.number,
                [(row, item.id, evaluation_rows.shown(item.path), reason) for row, item, reason in unusable],
            )
        for _ in part.unusable:
            advance(0)

    def _not_finite(self, value: np.ndarray) -> str:
        """Why a result cannot be stored."""
        if np.isfinite(value).all():
            return f"its vectors reach {np.abs(value).max():.3g}, beyond float16: give --store_dtype=float32"
        dtype = self._model.config.encoder.dtype
        narrow = f" (--dtype={dtype} may be too narrow)" if dtype != "float32" else ""
        return f"the model computes values for it that are not finite{narrow}"

    def _timeline_writer(self, part: Part, stack: contextlib.ExitStack) -> evaluation_rows.TimelineWriter | None:
        if not self._timeline:
            return None
        path = stack.enter_context(evaluation_output.whole(self._output.timeline(part.number)))
        writer = evaluation_rows.TimelineWriter(path, list(self._model.labels), self._cut)
        return stack.enter_context(contextlib.closing(writer))


def _stacked(windows: list[tuple[int, np.ndarray]]) -> np.ndarray:
    return np.stack([value for _, value in windows])
