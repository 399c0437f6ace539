"""Speed of the input pipeline by itself: from prepared records to batches that nobody consumes."""

import dataclasses
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Int, Int16

from benchmarks import measuring
from voc2vec_jax import errors
from voc2vec_jax.datasets import corpora, records, resident, shards
from voc2vec_jax.pretraining import batch_layout, batch_plan
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import reader as pretraining_reader
from voc2vec_jax.runs import sharding

RATE_HZ = 16_000
LEAST_MEAN_SECONDS, MOST_SECONDS = 0.5, 10  # of the noise clips


@dataclasses.dataclass(frozen=True)
class DataBenchmark:
    """What to measure: the `sets` in `data_dir`, or else `clips` noise clips of `mean_seconds`, written first."""

    data_dir: str | None = None
    sets: tuple[str, ...] = ()
    clips: int = 2000
    mean_seconds: float = 4.0
    groups: int = 1
    group_rows: int = 16
    threads: int = 2
    workers: int = 2
    passes: int = 3


def figures(settings: DataBenchmark) -> Iterator[dict[str, str | int | float]]:
    """One figure for each way to feed training: the median and the best of `passes` passes over the data.

    "audio_seconds_per_second" counts real audio, not padding. The clock starts when the first batch is ready.
    """
    check(settings)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = _corpus(settings, pathlib.Path(scratch))
        layout = batch_layout.BatchLayout(settings.groups, settings.group_rows)
        drawn = batch_plan.BatchPlan(layout, corpus.samples, corpus.set_index, np.arange(len(corpus)), seed=0)
        if drawn.steps_per_epoch < 2:
            raise errors.InputError(
                f"{len(corpus)} clips are one step of --groups={settings.groups} --group_rows={settings.group_rows}, "
                "and the first step is not timed; give more clips or smaller groups"
            )
        seconds, items = _content(corpus, drawn)
        for name, pass_ in _ways(settings, corpus, drawn).items():
            times = [_elapsed(pass_) for _ in range(settings.passes)]
            yield {
                "figure": f"data {name}",
                "audio_seconds_per_second": round(seconds / statistics.median(times)),
                "best": round(seconds / min(times)),
                "spread": round(max(times) / min(times), 2),
                "items_per_second": round(items / statistics.median(times)),
                "passes": settings.passes,
                "process_peak_mb": round(measuring.peak_bytes() / 1e6),
                "load": round(os.getloadavg()[0], 1),
                **measuring.machine("int16"),
                "clips": len(corpus),
                "mean_seconds": round(float(corpus.samples.mean()) / RATE_HZ, 3),
            }


def check(settings: DataBenchmark) -> None:
    """InputError for settings that cannot be measured."""
    for name, least in (("clips", 2), ("groups", 1), ("group_rows", 1), ("threads", 1), ("workers", 1), ("passes", 1)):
        if getattr(settings, name) < least:
            raise errors.InputError(f"--{name}={getattr(settings, name)}: give {least} or more")
    if not LEAST_MEAN_SECONDS <= settings.mean_seconds <= MOST_SECONDS:
        raise errors.InputError(
            f"--mean_seconds={settings.mean_seconds:g}: give {LEAST_MEAN_SECONDS} to {MOST_SECONDS}"
        )


def write_noise(
    data_dir: pathlib.Path, name: str, lengths: Sequence[int] | Int[np.ndarray, "n"], *, seed: int, shard_count: int
) -> records.PreparedSet:
    """A prepared set of `noise` clips of the given lengths in samples, two clips to a recording."""
    folder = records.set_folder(data_dir, name)
    folder.mkdir(parents=True)
    written = []
    for k, own in enumerate(np.array_split(np.arange(len(lengths)), shard_count)):
        path = folder / records.shard_name(name, k, shard_count)
        written.append(shards.write(path, _examples(own, lengths, seed), [], {}, []))
    shards.finish(folder, name, written, [], {})
    return records.open_set(data_dir, name)


def noise(seed: int, number: int, samples: int) -> Int16[np.ndarray, "s"]:
    """Clip `number` of a noise set: full-scale white noise, which does not compress."""
    return np.random.default_rng((seed, number)).integers(-(2**15), 2**15, samples, dtype=np.int16)


def _examples(numbers, lengths, seed) -> Iterator[records.Example]:
    for i in numbers.tolist():
        audio = noise(seed, i, int(lengths[i]))
        yield records.Example(audio, f"{i // 2}.wav#{i % 2}", f"{i // 2}.wav", "", "", (i % 2) * len(audio))


def _corpus(settings: DataBenchmark, scratch: pathlib.Path) -> corpora.Corpus:
    if settings.data_dir is not None:
        return corpora.open_corpus(settings.data_dir, settings.sets)
    draw = np.random.default_rng(0).gamma(2.0, settings.mean_seconds / 2 * RATE_HZ, settings.clips)
    # Prepared sets cut clips at 10 s; rescaling restores the mean length.
    lengths = np.clip(draw, 0.3 * RATE_HZ, 10 * RATE_HZ)
    lengths = np.clip(lengths * settings.mean_seconds * RATE_HZ / lengths.mean(), 1, 10 * RATE_HZ)
    return corpora.Corpus([write_noise(scratch, "noise", lengths.astype(int), seed=0, shard_count=4)])


def _ways(settings: DataBenchmark, corpus, drawn) -> dict[str, Callable[[], Iterator[object]]]:
    def stream(**options):
        return pretraining_reader.read_batches(corpus, drawn, 0, drawn.steps_per_epoch, **options)

    home = resident.Resident(corpus, np.arange(len(corpus)))
    crop = jax.jit(pretraining_data.make_crop(drawn.layout, sharding.make_mesh(1, jax.local_devices()[:1])))

    def crops():
        for batch in pretraining_data.resident_batches(home, corpus, drawn, 0, drawn.steps_per_epoch):
            placed = {name: x.astype(np.int32)[None, None] for name, x in batch.items()}
            yield crop(home.blocks, placed).block_until_ready()

    threads, workers = settings.threads, settings.workers
    return {
        f"stream threads={threads}": lambda: stream(threads=threads),
        f"stream workers={workers} threads=1": lambda: stream(threads=1, workers=workers),
        f"resident on {next(iter(home.blocks.devices())).platform}": crops,
    }


def _content(corpus, drawn) -> tuple[float, int]:
    """Seconds of audio, and clips, in every step of a pass except the first."""
    steps = [batch_layout.host_rows(drawn, corpus.samples, k) for k in range(1, drawn.steps_per_epoch)]
    clips = sum(int((step.index != batch_layout.EMPTY).sum()) for step in steps)
    return sum(float(step.lengths.sum()) for step in steps) / RATE_HZ, clips


def _elapsed(pass_: Callable[[], Iterator[object]]) -> float:
    """Seconds from the first batch to the last; the first one pays for start-up."""
    batches = pass_()
    next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start
