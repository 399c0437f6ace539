"""Making units: features of every frame, k-means on a sample of them, then the nearest cluster of every frame.

This module imports no JAX, because worker processes compute MFCCs with it. Layers of a model are in `layers`.
"""

import dataclasses
import functools
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, Protocol, runtime_checkable

import kaldi_native_fbank
import numpy as np
from jaxtyping import Float, Float32, Int16, Int64, UInt16
from sklearn import cluster

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.datasets import records, worker_processes
from voc2vec_jax.pretraining.units import store as unit_store

ROWS_AT_ONCE = 256
CEPSTRA = 13
MOST_CLUSTERS = 2**16


@runtime_checkable
class Features(Protocol):
    """What is clustered: one vector per frame."""

    rate_hz: float
    description: Mapping[str, Any]
    parallel: bool  # True: computed in worker processes; False: on the accelerator of this process

    def extract(self, clips: Sequence[Int16[np.ndarray, "_s"]]) -> list[Float32[np.ndarray, "_t d"]]:
        """The frames of some clips; none of a clip that is too short for one."""

    def assign(self, clips: Sequence[np.ndarray], centroids: Float32[np.ndarray, "k d"]) -> list[np.ndarray]:
        """The nearest centroid of every frame of some clips."""


@dataclasses.dataclass(frozen=True)
class Mfcc:
    """13 MFCCs with first and second deltas at 100 Hz, as fairseq's `dump_mfcc_feature.py` takes them from torchaudio.

    Kaldi's definition, without energy and dither, of samples in [-1, 1].
    """

    rate_hz = 100.0
    description = {"kind": "mfcc", "deltas": 2}
    parallel = True

    def extract(self, clips: Sequence[Int16[np.ndarray, "_s"]]) -> list[Float32[np.ndarray, "_t 39"]]:
        return [self._one(clip) for clip in clips]

    def _one(self, clip: Int16[np.ndarray, " s"]) -> Float32[np.ndarray, "t 39"]:
        online = kaldi_native_fbank.OnlineMfcc(_kaldi_options())
        online.accept_waveform(audio.RATE_HZ, audio.from_int16(clip))
        online.input_finished()
        frames = [online.get_frame(i) for i in range(online.num_frames_ready)]
        cepstra = np.array(frames, np.float32).reshape(-1, CEPSTRA)
        first = deltas(cepstra)
        return np.concatenate([cepstra, first, deltas(first)], axis=1)

    def assign(self, clips: Sequence[Int16[np.ndarray, "_s"]], centroids: Float32[np.ndarray, "k d"]):
        return [nearest(frames, centroids) for frames in self.extract(clips)]


@functools.cache
def _kaldi_options() -> kaldi_native_fbank.MfccOptions:
    options = kaldi_native_fbank.MfccOptions()
    # Dither is random noise: units would differ from run to run. Without energy the first cepstrum is c0.
    options.frame_opts.dither = 0.0
    options.use_energy = False
    return options


def deltas(x: Float32[np.ndarray, "t d"]) -> Float32[np.ndarray, "t d"]:
    """Slope over five frames, with the end frames repeated beyond the ends (torchaudio's compute_deltas)."""
    if not len(x):
        return x
    padded = np.pad(x, ((2, 2), (0, 0)), mode="edge")
    t = len(x)
    # d[t] = sum over n = 1, 2 of n (x[t+n] - x[t-n]), over 2 (1^2 + 2^2) = 10; padded[t + 2] is x[t]
    return ((padded[3 : 3 + t] - padded[1 : 1 + t]) + 2 * (padded[4:] - padded[:t])) / np.float32(10)


def nearest(x: Float32[np.ndarray, "t d"], centroids: Float32[np.ndarray, "k d"]) -> UInt16[np.ndarray, " t"]:
    """Number of the nearest centroid of every frame."""
    # |x - c|^2 without |x|^2, which is the same for every centroid
    distance = (centroids * centroids).sum(1)[None] - 2 * (x @ centroids.T)
    return distance.argmin(1).astype(np.uint16)


def sample_rows(counts: Sequence[int], share: float, seed: int) -> list[Int64[np.ndarray, " n"]]:
    """Records of each set for the clustering: ceil(share * count), drawn without replacement, ascending."""
    if not 0 < share <= 1:
        raise errors.InputError(f"share {share} of the records is not above 0 and at most 1: choose 0.1, say")
    drawn = []
    for number, count in enumerate(counts):
        # Raw words, because NumPy may change between versions what Generator's methods make of them.
        # A stream for each set: adding a set leaves the samples of those before it as they are.
        raw = np.random.Philox(key=np.array([seed, number], np.uint64)).random_raw(count)
        # Ranks of random words are a random order: its first share is the sample, sorted for reading.
        drawn.append(np.sort(np.argsort(raw, kind="stable")[: int(np.ceil(share * count))]))
    return drawn


def fit(frames: Float[np.ndarray, "n d"], clusters: int, seed: int) -> Float32[np.ndarray, "k d"]:
    """Centroids by MiniBatchKMeans with fairseq's settings; InputError for fewer frames than clusters."""
    if not 1 <= clusters <= MOST_CLUSTERS:
        raise errors.InputError(f"{clusters} clusters cannot be made: choose 1 to {MOST_CLUSTERS}")
    if len(frames) < clusters:
        raise errors.InputError(
            f"{len(frames)} frames are too few for {clusters} clusters: raise the share of records or ask for fewer"
        )
    # The values of learn_kmeans.py in fairseq's examples/hubert; 20 starts, of which the best is taken.
    means = cluster.MiniBatchKMeans(
        n_clusters=clusters,
        init="k-means++",
        max_iter=100,
        batch_size=10_000,
        tol=0.0,
        max_no_improvement=100,
        n_init=20,
        reassignment_ratio=0.0,
        compute_labels=False,
        random_state=seed,
    )
    return means.fit(frames).cluster_centers_.astype(np.float32)


def make_clustering(
    name: str,
    data_dir: str | os.PathLike,
    sets: Sequence[str],
    features: Features,
    *,
    clusters: int,
    share: float = 0.1,
    seed: int = 0,
    workers: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> unit_store.Clustering:
    """The clustering `name`; it is made from a sample of the sets' records unless it exists.

    InputError when the name belongs to a clustering of other features or another number of clusters.
    """
    folder = unit_store.clustering_folder(data_dir, name)
    found = unit_store.load_clustering(folder)
    if found is not None:
        _check_same(folder, found, features, clusters)
        for each, made_of in found.made_with.get("records", {}).items():
            if each in records.list_sets(data_dir) and records.open_set(data_dir, each).fingerprint != made_of:
                say(f"{name}: its clusters are of {each} as it was once; another name makes others")
        return found
    opened = [records.open_set(data_dir, each) for each in sets]
    rows = sample_rows([len(each) for each in opened], share, seed)
    # Rows of different sets are never in one lot, because a lot is read from one set.
    lots = [(each, lot) for each, chosen in zip(opened, rows) for lot in _lots(chosen)]
    start = time.monotonic()
    sampled = [frames for part in _over(_extract, lots, features, workers) for frames in part]
    frames = np.concatenate(sampled)
    say(f"{name}: {len(frames)} frames of {len(sampled)} records in {time.monotonic() - start:.1f} s")
    start = time.monotonic()
    made_with = {"sets": list(sets), "share": share, "seed": seed, "frames": len(frames)}
    made_with["records"] = {each.name: each.fingerprint for each in opened}
    made = unit_store.Clustering(fit(frames, clusters, seed), features.rate_hz, dict(features.description), made_with)
    made.save(folder)
    say(f"{name}: {clusters} clusters in {time.monotonic() - start:.1f} s")
    return made


def _check_same(folder: pathlib.Path, found: unit_store.Clustering, features: Features, clusters: int) -> None:
    wanted = {"features": dict(features.description), "clusters": clusters}
    there = {"features": dict(found.features), "clusters": len(found.centroids)}
    for field, value in wanted.items():
        if there[field] != value:
            raise errors.InputError(
                f"{folder} is a clustering of {field} {there[field]}, not {value}: choose another name or delete it"
            )


def make_units(
    name: str,
    prepared: records.PreparedSet,
    clustering: unit_store.Clustering,
    features: Features,
    *,
    workers: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> unit_store.Units:
    """The units of every record of a set, stored beside them. Finished units are kept, an interrupted run goes on."""
    folder = prepared.folder / unit_store.FOLDER / name
    found = unit_store.load_units(folder)
    if found is not None and (found.prepared, found.clustering) == (prepared.fingerprint, clustering.fingerprint):
        return found
    # Parts of other records, or of another clustering, are under another name and never joined with these.
    key = f"{prepared.fingerprint[:16]}-{clustering.fingerprint[:16]}"
    partial = folder.with_name(f".{name}-{key}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    # Lots of a fixed size, whatever the number of workers: parts of an interrupted run fit any later one.
    lots = _lots(np.arange(len(prepared)))
    paths = [partial / f"part-{number:06d}.npy" for number in range(len(lots))]
    missing = [(path, lot) for path, lot in zip(paths, lots) if not _is_whole(path, len(lot))]
    start = time.monotonic()
    jobs = [(prepared, lot) for _, lot in missing]
    assign = functools.partial(_assign, clustering.centroids)
    for (path, _), part in zip(missing, _over(assign, jobs, features, workers)):
        # Saved as they come, so that a kill costs the lots in progress only.
        unit_store.save_array(path, _packed(part))
    seconds = sum(int(prepared.samples[lot].sum(dtype=np.int64)) for _, lot in missing) / audio.RATE_HZ
    elapsed = time.monotonic() - start
    if missing:
        speed = f"{seconds / elapsed:.0f} audio-seconds per second"
        say(f"{name}: {prepared.name}, {seconds:.0f} s of audio assigned in {elapsed:.1f} s: {speed}")
    return _finish(folder, partial, paths, prepared, clustering)


def _finish(folder, partial, paths, prepared, clustering) -> unit_store.Units:
    """Join the parts in one folder, which gets its name when it is complete."""
    parts = [_unpacked(np.load(opening.checked(path), allow_pickle=False)) for path in paths]
    # Records of 3, 0 and 2 frames:   ends 3 3 5   flat | a b c | | d e |   record i is flat[ends[i - 1] : ends[i]]
    ends = np.cumsum(np.concatenate([np.zeros(0, np.int64), *(lengths for lengths, _ in parts)]), dtype=np.int64)
    flat = np.concatenate([np.zeros(0, np.uint16), *(part for _, part in parts)])
    whole = partial / "whole"
    whole.mkdir(exist_ok=True)
    unit_store.save_array(whole / unit_store.UNITS_FILE, flat)
    unit_store.save_array(whole / unit_store.ENDS_FILE, ends)
    said = {"prepared": prepared.fingerprint, "clustering": clustering.fingerprint, "frames": len(flat)}
    unit_store.save_json(
        whole / unit_store.META_FILE, {**said, "clusters": len(clustering.centroids), "rate_hz": clustering.rate_hz}
    )
    if folder.exists():  # of older records or another clustering
        shutil.rmtree(folder)
    os.replace(whole, folder)
    shutil.rmtree(partial)
    return unit_store.load_units(folder)


def _packed(part: list[UInt16[np.ndarray, "_"]]) -> Int64[np.ndarray, " n"]:
    """Lengths and units of some records as one array, the number of records first."""
    # Two records, of 3 units and of 1:   2 | 3 1 | 7 7 4 9
    lengths = [len(part), *map(len, part)]
    return np.concatenate([np.array(lengths, np.int64), *(each.astype(np.int64) for each in part)])


def _unpacked(packed: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " r"], UInt16[np.ndarray, " t"]]:
    count = 1 + int(packed[0])
    return packed[1:count], packed[count:].astype(np.uint16)


def _is_whole(path: pathlib.Path, count: int) -> bool:
    try:
        packed = np.load(opening.checked(path), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    # 1 number of records, `count` lengths, and as many units as the lengths say.
    return len(packed) > count and bool(packed[0] == count and len(packed) == 1 + count + packed[1 : 1 + count].sum())


def _lots(rows: Int64[np.ndarray, " n"]) -> list[Int64[np.ndarray, " m"]]:
    return [rows[at : at + ROWS_AT_ONCE] for at in range(0, len(rows), ROWS_AT_ONCE)]


def _extract(features: Features, prepared: records.PreparedSet, rows: np.ndarray) -> list[np.ndarray]:
    return features.extract(prepared.read(rows))


def _assign(centroids, features: Features, prepared: records.PreparedSet, rows: np.ndarray) -> list[np.ndarray]:
    return features.assign(prepared.read(rows), centroids)


def _over(work: Callable, lots: Sequence[tuple], features: Features, workers: int) -> Iterator[list[np.ndarray]]:
    """`work(features, set, rows)` of every lot, in order; in worker processes when the features are `parallel`."""
    workers = min(workers, len(lots)) if features.parallel else 1
    if workers <= 1:
        yield from (work(features, *lot) for lot in lots)
        return
    with worker_processes.Pool(workers) as pool:
        try:
            yield from pool.map(work, [features] * len(lots), *zip(*lots))
        except futures.process.BrokenProcessPool as error:
            raise errors.RunError(
                "a worker process died, perhaps for want of memory: run again to continue, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
