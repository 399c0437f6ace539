"""Prepared records to batches: Grain maps the steps of a batch plan to int16 audio, in order, from any step on.

This module imports no JAX, so that reading processes never touch an accelerator.
"""

import functools
import multiprocessing
import os
import shutil
import sys
import threading
import weakref
from pathlib import Path

import grain
import numpy as np
from absl import flags

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import corpora, worker_processes
from voc2vec_jax.pretraining import batch_layout
from voc2vec_jax.pretraining.units import store as unit_store

SHARED_MEMORY = Path("/dev/shm")


class Batches:
    """An iterator over batches. Its threads and processes stop at its end, at `close` and when its context ends."""

    def __init__(self, dataset: grain.IterDataset):
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads absl flags and fails when a program has not parsed any
        with worker_processes.unheard():
            iterator = iter(dataset)
            iterator.get_state()  # makes Grain create its workers; the next line then starts all of them at once
            iterator.start_prefetch()
        # In a list, so that closing drops the iterator: Grain complains of one that lives until the interpreter ends.
        self._held = [iterator]
        self._close = weakref.finalize(self, _close_all, self._held)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if not self._held:
            raise StopIteration
        try:
            return next(self._held[0])
        except BaseException as error:
            self.close()
            if isinstance(error, errors.InputError):  # the data were intact at the start, so it is a fault of the run
                raise errors.RunError(str(error)) from error
            if isinstance(error, RuntimeError) and str(error).startswith("Worker process was terminated"):
                raise errors.RunError(
                    f"a reading process was ended ({str(error).split('.')[0]}), perhaps for want of memory: "
                    "run again with fewer workers"
                ) from error
            raise

    def close(self) -> None:
        """Stop reading. It may be called twice, and it happens when the program ends."""
        self._close()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _close_all(held: list[grain.DatasetIterator]) -> None:
    while held:
        held.pop().close()


def read_batches(
    corpus: corpora.Corpus,
    plan: batch_layout.Plan,
    first_step: int,
    last_step: int,
    *,
    batching: batch_layout.Batching = "pad",
    host: tuple[int, int] | None = None,
    workers: int = 0,
    threads: int = 2,
    prefetch: int = 4,
    targets: unit_store.FrameTargets | None = None,
    eps: float | None = None,
) -> Batches:
    """Batches of steps first_step to last_step - 1, in order; to the bit what a run from step 0 would get.

    A batch holds "audio": int16 [g, s] flat buffers, each row zero-padded to its bucket, "lengths": int32 [g, r],
    "index": int64 [g, r] corpus rows, "bucket": int64 [g], with `targets` also "units" (`store.units_of`), and with
    `eps` "mean" and "factor": float32 [g, r], which normalise each clip as a whole (`audio.normalising`).
    `host` (i, n) reads part i of n equal parts of the groups (see `batch_layout.host_rows`). `threads` threads read in
    this process, or in each of `workers` processes; `prefetch` batches are kept ready.
    """
    batch_layout.check_hosts(plan.layout, host)
    batch = functools.partial(_batch, corpus, plan, batching, host, targets, eps)
    source = grain.MapDataset.range(first_step, max(first_step, last_step)).map(batch)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, prefetch))
    if not workers:
        return Batches(source.to_iter_dataset(options))
    # The workers share the prefetch: rounded up, so that together they hold at least `prefetch` batches.
    ahead = -(-prefetch // workers)
    _check_shared_memory(plan.layout, workers * (ahead + 2))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead)
    dataset = source.to_iter_dataset(options).mp_prefetch(processes, worker_init_fn=_become_reader)
    return Batches(dataset)


def _batch(corpus, plan, batching, host, targets, eps, k) -> dict[str, np.ndarray]:
    rows = batch_layout.host_rows(plan, corpus.samples, k, batching, host)
    # Zeros are the padding behind a crop, the whole of an EMPTY row, and the rest of a buffer.
    buffers = np.zeros((len(rows.index), plan.layout.buffer_samples), np.int16)
    group, place = np.nonzero(rows.index != batch_layout.EMPTY)
    begins = place * np.array(plan.layout.bucket_samples)[rows.bucket[group]]
    # All clips in one call, which the corpus reads set by set.
    clips = corpus.read(rows.index[group, place])
    starts, lengths = rows.start[group, place].tolist(), rows.lengths[group, place].tolist()
    for g, begin, clip, start, length in zip(group.tolist(), begins.tolist(), clips, starts, lengths):
        buffers[g, begin : begin + length] = clip[start : start + length]
    units = unit_store.units_of(targets, plan.layout, rows)
    batch = {"audio": buffers, "lengths": rows.lengths, "index": rows.index, "bucket": rows.bucket, **units}
    if eps is None:
        return batch
    batch |= {name: np.zeros(rows.index.shape, np.float32) for name in ("mean", "factor")}
    batch["mean"][group, place], batch["factor"][group, place] = audio.normalising(clips, eps)
    return batch


def _become_reader(*_) -> None:
    """Set up a reading process: no accelerator, and it ends when its parent ends."""
    # The variable counts for an import of JAX still to come; if JAX is there already, only its configuration does.
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    # Not sys.exit, which would end this thread only.
    os._exit(errors.EXIT_FAULT)


def _check_shared_memory(layout, batches) -> None:
    if not SHARED_MEMORY.is_dir():
        return
    # Grain passes batches through shared memory, int16; Docker gives 64 MB of it and a full one kills with SIGBUS.
    needed, free = 2 * layout.groups * layout.buffer_samples * batches, shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise errors.InputError(
            f"reading processes need {needed / 1e6:.0f} MB of {SHARED_MEMORY} and {free / 1e6:.0f} MB are free: "
            "enlarge it (docker run --shm-size) or set workers to 0"
        )
