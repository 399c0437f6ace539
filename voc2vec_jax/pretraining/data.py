"""Training and validation batches on the devices, from prepared sets on disk or from a resident corpus.

A batch goes one way, whichever the source:

    stream:    host_rows -> audio, read and cropped by the host -> devices [d, a, g, s]
    resident:  host_rows -> where each crop begins              -> devices [d, a, g, r] -> cropped [d, a, g, s]
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Int, Int64

from voc2vec_jax import audio, datasets, errors
from voc2vec_jax.datasets import corpora, records, resident
from voc2vec_jax.pretraining import batch_layout, batch_plan, held_out
from voc2vec_jax.pretraining import reader as pretraining_reader
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import logs, sharding

CROP = ("block_start", "offset", "lengths")  # what says where a clip's crop lies in a resident corpus


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """The corpus of a run, which of its rows are for what, and the batch plans over them.

    `short_rows` are too short to be masked: they are neither trained on nor validated on.
    """

    corpus: corpora.Corpus
    train_rows: Int64[np.ndarray, "t"]
    valid_rows: Int64[np.ndarray, "v"]
    short_rows: Int64[np.ndarray, "s"]
    plan: batch_plan.BatchPlan
    valid_plan: batch_plan.ValidationPlan
    held_out_rows: Int64[np.ndarray, "h"]  # `valid_rows` and those among them that are left out
    excluded: tuple[str, ...] = ()  # ids that are left out


def open_examples(
    config: ml_collections.ConfigDict,
    layout: batch_layout.BatchLayout,
    min_samples: int,
    before: held_out.Kept = held_out.NOTHING,
    excluded: Sequence[str] = (),
) -> Examples:
    """Open the prepared sets of a configuration; InputError when one is missing or every clip is too short.

    `before` is what the run's folder says of its clips; the clips of the ids in `excluded` are left out.
    """
    corpus = open_corpus(config)
    # Split first, then drop clips: which recordings are held out must not depend on the model or on what is left out.
    train_rows, valid_rows = held_out.split(corpus, config.valid_share, config.seed, before)
    short = too_short(corpus.samples, min_samples)
    dropped = short.copy()
    dropped[held_out.rows_of(corpus, excluded, of=f"exclude={config.exclude}")] = True
    kept, held = train_rows[~dropped[train_rows]], valid_rows
    valid_rows = valid_rows[~dropped[valid_rows]]
    if len(train_rows) and not len(kept) and not short[train_rows].all():
        raise errors.InputError(f"exclude={config.exclude} leaves no clip to train on: shorten the list")
    if not len(kept):
        raise errors.InputError(
            f"all {len(train_rows)} training clips are shorter than {min_samples} samples "
            f"({min_samples / audio.RATE_HZ:.3f} s) and cannot be masked: prepare longer recordings"
        )
    plan = batch_plan.BatchPlan(
        layout, corpus.samples, corpus.set_index, kept, seed=config.seed, weights=set_weights(config)
    )
    valid_plan = batch_plan.ValidationPlan(layout, corpus.samples, valid_rows)
    return Examples(corpus, kept, valid_rows, np.flatnonzero(short), plan, valid_plan, held, tuple(excluded))


def too_short(samples: Int[np.ndarray, "n"], min_samples: int) -> Bool[np.ndarray, "n"]:
    """True for clips of fewer than `min_samples` samples, in which no span can be masked."""
    return samples < min_samples


class DeviceBatches:
    """Batches as `step.make_update` takes them: arrays [d, a, g, ...] that lie over all devices.

    Axis a holds the `micros` micro-batches of a device, which are computed one after another. With `config.input`
    "resident" the corpus is uploaded at once, which may take minutes.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        examples: Examples,
        targets: unit_store.FrameTargets | None,
        mesh: Mesh,
        micros: int,
    ):
        self.examples = examples
        self._mesh, self._micros, self._workers = mesh, micros, config.workers
        # Its place in the mesh, and not its number, says which groups a process reads.
        part = sharding.place_of_process(list(mesh.devices.flat), jax.process_index())
        host = part if jax.process_count() > 1 else None
        self._eps = pretraining_recipe.normalize_eps(config)
        self._options: dict[str, Any] = {"batching": config.batching, "targets": targets, "host": host}
        self._resident = None
        if config.input == "resident":
            # Without the short rows, which no plan draws; ascending, as they lie on disk.
            rows = np.sort(np.concatenate([examples.train_rows, examples.valid_rows]))
            self._resident = resident.Resident(examples.corpus, rows, mesh, self._eps)
        # Made once: a jit wrapper keeps its compiled programs, a new one for each batch would look them up again.
        self._crop = jax.jit(make_crop(examples.plan.layout, mesh))

    def train(self, first_step: int, last_step: int) -> contextlib.AbstractContextManager[Iterator[dict]]:
        """The batches of steps first_step to last_step - 1."""
        return self._batches(self.examples.plan, first_step, last_step, self._workers)

    def valid(self) -> contextlib.AbstractContextManager[Iterator[dict]]:
        """Every validation row once, in order."""
        # In threads: to start processes takes longer than they would read, and the devices wait.
        return self._batches(self.examples.valid_plan, 0, self.examples.valid_plan.steps_per_epoch, workers=0)

    @contextlib.contextmanager
    def _batches(
        self, plan: batch_layout.Plan, first: int, last: int, workers: int
    ) -> Iterator[Iterator[dict[str, jax.Array]]]:
        steps = (self.examples.corpus, plan, first, last)
        if self._resident is not None:
            yield map(self._cropped, resident_batches(self._resident, *steps, **self._options))
            return
        with pretraining_reader.read_batches(*steps, workers=workers, eps=self._eps, **self._options) as batches:
            yield map(self._uploaded, batches)

    def _uploaded(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return {name: self._put(x) for name, x in batch.items()}

    def _cropped(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        arrays = self._uploaded(batch)
        where = {name: arrays.pop(name) for name in ("block_start", "offset")}
        return {"audio": self._crop(self._resident.blocks, {**arrays, **where}), **arrays}

    def _put(self, x: np.ndarray) -> jax.Array:
        """[groups, ...] of this host as [d, a, g, ...] over all devices; int64 becomes int32."""
        # JAX computes in 32 bits here, and a corpus has fewer than 2**31 rows.
        x = x.astype(np.int32) if x.dtype == np.int64 else x
        # Groups stay in order. Two devices of two micro-batches of two groups:   0 1 | 2 3 || 4 5 | 6 7
        x = x.reshape(len(self._mesh.local_devices), self._micros, -1, *x.shape[1:])
        # Every host gives its own part of axis d, in the order of the hosts: the parts of `host_rows`.
        shape = (self._mesh.size, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding.over_batch(self._mesh, 0), x, shape)


def make_crop(layout: batch_layout.BatchLayout, mesh: Mesh) -> Callable:
    """`crop(blocks, batch)`: the audio int16 [d, a, g, s] of a batch of `resident_batches`; devices exchange nothing.

    `blocks` are those of `resident.Resident`, and each device crops its own groups.
    """

    def of_group(bucket, blocks, group):
        places = layout.group_rows_of(bucket)
        where = (group[name][:places] for name in CROP)
        clips = resident.crop(blocks, *where, bucket_samples=layout.bucket_samples[bucket]).reshape(-1)
        return jnp.pad(clips, (0, layout.buffer_samples - len(clips)))

    branches = [functools.partial(of_group, bucket) for bucket in range(len(layout.bucket_samples))]

    def of_device(blocks, batch):
        places = batch["bucket"].shape
        batch = {name: batch[name].reshape(-1, *batch[name].shape[3:]) for name in (*CROP, "bucket")}
        groups = jax.lax.map(lambda group: jax.lax.switch(group["bucket"], branches, blocks, group), batch)
        return groups.reshape(*places, -1)

    specs = (sharding.WHOLE, sharding.OVER_BATCH)
    return jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=sharding.OVER_BATCH)


def resident_batches(
    home: resident.Resident,
    corpus: corpora.Corpus,
    plan: batch_layout.Plan,
    first_step: int,
    last_step: int,
    *,
    batching: batch_layout.Batching = "pad",
    host: tuple[int, int] | None = None,
    targets: unit_store.FrameTargets | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """What `reader.read_batches` yields, with "block_start" and "offset" (int32 [g, r]) in place of "audio".

    `make_crop` makes that audio of it, to the bit. ValueError when the plan draws a row that is not resident.
    """
    batch_layout.check_hosts(plan.layout, host)
    for k in range(first_step, last_step):
        rows = batch_layout.host_rows(plan, corpus.samples, k, batching, host)
        # An EMPTY row may point anywhere: its length is 0, so that its crop is all zeros.
        first = np.where(rows.index == batch_layout.EMPTY, 0, home.block_start[rows.index])
        if first.min() < 0:
            raise ValueError(f"corpus row {rows.index[first < 0][0]} of step {k} is not resident")
        normalising = {}
        if home.mean is not None:
            empty = rows.index == batch_layout.EMPTY
            normalising = {
                "mean": np.where(empty, np.float32(0), home.mean[rows.index]),
                "factor": np.where(empty, np.float32(0), home.factor[rows.index]),
            }
        yield {
            **normalising,
            "block_start": first.astype(np.int32),
            "offset": rows.start.astype(np.int32),
            "lengths": rows.lengths,
            "index": rows.index,
            "bucket": rows.bucket,
            **unit_store.units_of(targets, plan.layout, rows),
        }


def open_corpus(config: ml_collections.ConfigDict) -> corpora.Corpus:
    """The prepared sets of a configuration; `synthetic` is made on the spot, others must be there."""
    prepared = records.list_sets(config.data_dir)
    if "synthetic" in config.sets and "synthetic" not in prepared:
        logs.say(f"preparing the synthetic set in {config.data_dir}")
        datasets.prepare("synthetic", data_dir=config.data_dir)
        prepared = [*prepared, "synthetic"]
    # Only the synthetic set needs no download and no licence.
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
