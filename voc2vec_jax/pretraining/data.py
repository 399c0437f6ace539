"""Training and validation data on the devices, as `update` takes it: from disk or from the resident corpus."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int64

from voc2vec_jax import audio, datasets, errors
from voc2vec_jax.datasets import corpora, records, resident
from voc2vec_jax.pretraining import batch_plan
from voc2vec_jax.pretraining import reader as pretraining_reader
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import logs, sharding


class Data:
    """The corpus of a configuration, its training plan, its validation rows, and both as device batches."""

    def __init__(self, config: ml_collections.ConfigDict, mesh: Mesh, groups: int, micros: int, min_samples: int):
        """Opens the prepared sets; clips under `min_samples` are left out and reported."""
        self.corpus = open_corpus(config)
        self._config, self._mesh, self._micros = config, mesh, micros
        train_rows, valid_rows = pretraining_reader.split_by_recording(self.corpus, config.valid_share, config.seed)
        short = pretraining_reader.too_short(self.corpus.samples, min_samples)
        self.short_rows = np.flatnonzero(short)
        self.train_rows, self.valid_rows = train_rows[~short[train_rows]], valid_rows[~short[valid_rows]]
        if not len(self.train_rows):
            raise errors.InputError(
                f"all {len(train_rows)} training clips are shorter than {min_samples} samples "
                f"({min_samples / audio.RATE_HZ:.3f} s) and cannot be masked: prepare longer recordings"
            )
        layout = pretraining_recipe.batch_layout(config, groups)
        self.plan = batch_plan.BatchPlan(
            layout,
            self.corpus.samples,
            self.corpus.set_index,
            self.train_rows,
            seed=config.seed,
            weights=set_weights(config),
        )
        self.valid_plan = batch_plan.ValidationPlan(layout, self.corpus.samples, self.valid_rows)
        self._resident = None
        self.targets = None  # the units of every frame, for a family that reads them

    def upload(self) -> None:
        """Bring the corpus to the devices when `config.input` is "resident"."""
        if self._config.input == "resident":
            rows = np.sort(np.concatenate([self.train_rows, self.valid_rows]))
            self._resident = resident.Resident(self.corpus, rows, self._mesh)

    def train(self, first_step: int, last_step: int) -> contextlib.AbstractContextManager[Iterator]:
        """Pairs of a device batch and its corpus rows on this host, for steps first_step to last_step - 1."""
        return self._batches(self.plan, first_step, last_step, self._config.batching, self._micros)

    def valid(self) -> contextlib.AbstractContextManager[Iterator]:
        """Every validation row once, in order."""
        return self._batches(self.valid_plan, 0, self.valid_plan.steps_per_epoch, self._config.batching, self._micros)

    @contextlib.contextmanager
    def _batches(self, plan, first, last, batching, micros):
        hosts = jax.process_count()
        options: dict[str, Any] = {"batching": batching, "targets": self.targets}
        options["row_slice"] = (jax.process_index(), hosts) if hosts > 1 else None
        if self._resident is not None:
            yield (
                self._cropped(batch, micros)
                for batch in resident_batches(self._resident, self.corpus, plan, first, last, **options)
            )
            return
        options["workers"] = self._config.workers
        with pretraining_reader.train_batches(self.corpus, plan, first, last, **options) as batches:
            yield (self._uploaded(batch, micros) for batch in batches)

    def _uploaded(self, batch: dict, micros: int) -> tuple[dict, Int64[np.ndarray, "g r"]]:
        return {name: self._put(x, micros) for name, x in batch.items()}, batch["index"]

    def _cropped(self, batch: dict, micros: int) -> tuple[dict, Int64[np.ndarray, "g r"]]:
        bucket_samples = batch.pop("bucket_samples")
        put = {name: self._put(x, micros) for name, x in batch.items()}
        where = [put.pop(name) for name in ("block_start", "offset")]
        crop = jax.jit(
            resident.crop, static_argnames="bucket_samples", out_shardings=sharding.over_batch(self._mesh, 0)
        )
        clips = crop(self._resident.blocks, *where, put["lengths"], bucket_samples=bucket_samples)
        return {"audio": clips, **put}, batch["index"]

    def _put(self, x: np.ndarray, micros: int) -> jax.Array:
        """[groups, ...] of this host as [g, micros, ...] over all devices."""
        x = x.astype(np.int32) if x.dtype == np.int64 else x
        x = x.reshape(-1, micros, *x.shape[1:])
        shape = (x.shape[0] * jax.process_count(), *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding.over_batch(self._mesh, 0), x, shape)


def resident_batches(
    home: resident.Resident,
    corpus: corpora.Corpus,
    plan: batch_plan.BatchPlan | batch_plan.ValidationPlan,
    first_step: int,
    last_step: int,
    *,
    batching: batch_plan.Batching = "pad",
    row_slice: tuple[int, int] | None = None,
    targets: unit_store.FrameTargets | None = None,
) -> Iterator[dict[str, np.ndarray | int]]:
    """What `reader.train_batches` yields, with "block_start" and "offset" (int32) in place of "audio".

    `resident.crop(home.blocks, block_start, offset, lengths, bucket_samples)` is that audio, to the bit. The static
    "bucket_samples" comes along. ValueError when the plan draws a row that is not resident.
    """
    pretraining_reader.check_row_slice(plan.layout, row_slice)
    for k in range(first_step, last_step):
        rows = pretraining_reader.step_rows(corpus, plan, k, batching, row_slice)
        first = np.where(rows.index == batch_plan.EMPTY, 0, home.block_start[rows.index])
        if first.min() < 0:
            raise ValueError(f"corpus row {rows.index[first < 0][0]} of step {k} is not resident")
        yield {
            "block_start": first.astype(np.int32),
            "offset": rows.start.astype(np.int32),
            "lengths": rows.lengths,
            "index": rows.index,
            "bucket_samples": rows.bucket_samples,
            **pretraining_reader.units_of(targets, rows),
        }


def open_corpus(config: ml_collections.ConfigDict) -> corpora.Corpus:
    """The prepared sets of a configuration; `synthetic` is made on the spot, others must be there."""
    prepared = records.list_sets(config.data_dir)
    if "synthetic" in config.sets and "synthetic" not in prepared:
        logs.say(f"preparing the synthetic set in {config.data_dir}")
        datasets.prepare("synthetic", data_dir=config.data_dir)
        prepared = [*prepared, "synthetic"]
    missing = [name for name in config.sets if name not in prepared]
    if missing:
        logs.say(datasets.missing_table(config.sets, config.data_dir))
        there = [name for name in config.sets if name in prepared]
        without = f"--config.sets={','.join(there)}" if there else "--config.sets=synthetic"
        raise errors.InputError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in {config.data_dir}: prepare them "
            f"with tools/prepare.py as the table says, or train without them by {without}"
        )
    return corpora.open_corpus(config.data_dir, config.sets)


def set_weights(config: ml_collections.ConfigDict) -> list[float] | None:
    """Mixing weights, one per set; InputError when there are more or fewer."""
    if not config.set_weights:
        return None
    if len(config.set_weights) != len(config.sets):
        raise errors.InputError(
            f"set_weights has {len(config.set_weights)} entries for {len(config.sets)} sets: give one number per set"
        )
    try:
        return [float(weight) for weight in config.set_weights]
    except ValueError:
        raise errors.InputError(f"set_weights {config.set_weights} are not all numbers, such as 1,2.5") from None
