"""A corpus kept on the devices as int16 and cropped there: the host sends indices, not audio."""

import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int16, Int32, Int64

from voc2vec_jax import audio, errors

BLOCK_SAMPLES = 1600
UPLOAD_BLOCKS = 20_000  # 64 MB of int16 at a time


@runtime_checkable
class Clips(Protocol):
    """What can be kept on the devices: a pre-training corpus or the clips of a task."""

    samples: Int32[np.ndarray, "n"]

    def __len__(self) -> int: ...

    def read(self, rows: Int64[np.ndarray, "m"]) -> list[np.ndarray]:
        """The int16 audio of some rows."""


class Resident:
    """The clips of some corpus rows as blocks [n, 1600] on every device of a mesh; each clip begins at a block.

    `block_start` is int32 [corpus rows], -1 for rows that are not here. It counts blocks, because 32 bits would not
    count the samples of a large corpus. `mean` and `factor`, float32 [corpus rows], normalise the clips; None without
    `eps`.
    """

    def __init__(
        self,
        corpus: Clips,
        rows: Int64[np.ndarray, "n"],
        mesh: jax.sharding.Mesh | None = None,
        eps: float | None = None,
    ):
        """Reads and uploads `rows`; with several hosts, every process calls this with the same rows.

        `eps` is that of `audio.normalising`. Raises InputError when a device reports too little free memory.
        """
        mesh = mesh or jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("replica",))
        self._corpus = corpus
        self._sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        rows = np.unique(rows)
        ends = np.cumsum(-(-corpus.samples[rows].astype(np.int64) // BLOCK_SAMPLES))
        starts = np.concatenate([[0], ends])[:-1]
        upload = min(UPLOAD_BLOCKS, int(ends.max(initial=1)))
        pieces = _pieces(ends, upload)
        largest = max((int(ends[hi - 1] - starts[lo]) for lo, hi in pieces), default=1)
        # Pieces have a fixed size. The surplus of one is overwritten by the next; the last surplus lies at the end.
        shape = (int(ends.max(initial=0)) + largest, BLOCK_SAMPLES)
        _check_memory(mesh.local_devices, shape, largest)
        self.block_start = np.full(len(corpus), -1, np.int32)
        self.block_start[rows] = starts
        self.mean, self.factor = None, None
        if eps is not None:
            self.mean, self.factor = np.zeros((2, len(corpus)), np.float32)
        self.blocks = jax.jit(functools.partial(jnp.zeros, shape, jnp.int16), out_shardings=self._sharding)()
        put = jax.jit(_put, donate_argnums=0, out_shardings=self._sharding)
        for lo, hi in pieces:
            clips = corpus.read(rows[lo:hi])
            if eps is not None:
                self.mean[rows[lo:hi]], self.factor[rows[lo:hi]] = audio.normalising(clips, eps)
            piece = self._upload(_pack(clips, largest))
            self.blocks = put(self.blocks, piece, np.int32(starts[lo]))

    def _upload(self, piece: Int16[np.ndarray, "n 1600"]) -> Int16[Array, "n 1600"]:
        return jax.make_array_from_callback(piece.shape, self._sharding, lambda where: piece[where])


@functools.partial(jax.jit, static_argnames="bucket_samples")
def crop(
    blocks: Int16[Array, "n 1600"],
    block_start: Int32[Array, "*r"],
    offset: Int32[Array, "*r"],
    length: Int32[Array, "*r"],
    bucket_samples: int,
) -> Int16[Array, "*r s"]:
    """`length` samples from `offset` of each clip, zero-padded to `bucket_samples`; jittable, without communication."""
    reach = np.arange(-(-(bucket_samples + BLOCK_SAMPLES - 1) // BLOCK_SAMPLES), dtype=np.int32)
    position = np.arange(bucket_samples, dtype=np.int32)

    def one(block_start, offset, length):
        # Near the end of the corpus the reach is clipped to the last block; what is read there lies beyond `length`.
        window = blocks.at[block_start + offset // BLOCK_SAMPLES + reach].get(mode="clip").ravel()
        clip = jax.lax.dynamic_slice(window, (offset % BLOCK_SAMPLES,), (bucket_samples,))
        return jnp.where(position < length, clip, jnp.int16(0))

    for _ in block_start.shape:  # not flattened, so that each device crops its own rows
        one = jax.vmap(one)
    return one(block_start, offset, length)


def _put(blocks, piece, start):
    return jax.lax.dynamic_update_slice(blocks, piece, (start, jnp.int32(0)))


def _pieces(ends: Int64[np.ndarray, "n"], blocks: int) -> list[tuple[int, int]]:
    """Ranges of clips with about `blocks` blocks each, and at least one clip."""
    cuts = np.unique(np.searchsorted(ends, np.arange(blocks, ends.max(initial=0), blocks), side="right"))
    edges = np.unique(np.concatenate([[0], cuts, [len(ends)]])).tolist()
    return list(zip(edges[:-1], edges[1:]))


def _pack(clips: list[np.ndarray], blocks: int) -> Int16[np.ndarray, "n 1600"]:
    # A new array for each piece, because on CPU devices JAX may use the host's memory without a copy.
    packed = np.zeros((blocks, BLOCK_SAMPLES), np.int16)
    flat, at = packed.reshape(-1), 0
    for clip in clips:
        flat[at : at + len(clip)] = clip
        at += -(-len(clip) // BLOCK_SAMPLES) * BLOCK_SAMPLES
    return packed


def _check_memory(devices, shape, piece_blocks) -> None:
    needed = 2 * BLOCK_SAMPLES * (shape[0] + piece_blocks)
    if shape[0] >= 2**31:
        raise errors.InputError(f"{shape[0]} resident blocks are more than int32 counts: set input to stream")
    for device in devices:
        stats = device.memory_stats() or {}
        free = stats.get("bytes_limit", needed) - stats.get("bytes_in_use", 0)
        if needed > free and "bytes_limit" in stats:
            raise errors.InputError(
                f"the resident corpus needs {needed / 1e9:.2f} GB and {device} has {free / 1e9:.2f} GB free of "
                f"{stats['bytes_limit'] / 1e9:.2f} GB: set input to stream or train on fewer sets"
            )
