"""Units: the cluster of every frame of the prepared records, stored beside them and read as targets of crops.

`data_dir/units/NAME/` holds a clustering; `data_dir/SET/VERSION/units/NAME/` holds the units that it gives to the
records of a set. A run copies both. This module imports no JAX, because reading processes must not. See `making`.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64, UInt16

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.datasets import records
from voc2vec_jax.pretraining import batch_layout
from voc2vec_jax.runs import files

FIRST_CLASS = 4  # fairseq's dictionary begins with bos, pad, eos and unk, and these stay among the classes
FOLDER = "units"
META_FILE, UNITS_FILE, ENDS_FILE, CENTROIDS_FILE = "units.json", "units.npy", "ends.npy", "centroids.npy"


@dataclasses.dataclass(frozen=True)
class Clustering:
    """Centroids in a feature space; the unit of a frame is the number of its nearest centroid.

    `features` says which features (`{"kind": "mfcc"}`, or the layer and hash of a model), `rate_hz` how many a second.
    """

    centroids: Float32[np.ndarray, "k d"]
    rate_hz: float
    features: Mapping[str, Any]
    made_with: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # sets, share and seed, for the record only

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the centroids and the features."""
        # Not `made_with`: the same centroids are the same clustering, however they were found.
        said = json.dumps([self.rate_hz, dict(self.features)], sort_keys=True)
        return hashlib.sha256(said.encode() + self.centroids.tobytes()).hexdigest()

    def save(self, folder: pathlib.Path) -> None:
        """Write the clustering into `folder`. The file that marks it as complete comes last."""
        folder.mkdir(parents=True, exist_ok=True)
        save_array(folder / CENTROIDS_FILE, self.centroids)
        said = {"fingerprint": self.fingerprint, "clusters": len(self.centroids), "rate_hz": self.rate_hz}
        save_json(folder / META_FILE, {**said, "features": dict(self.features), "made_with": dict(self.made_with)})


def clustering_folder(data_dir: str | os.PathLike, name: str) -> pathlib.Path:
    """Where a clustering is kept; it need not exist."""
    return pathlib.Path(data_dir) / FOLDER / name


def units_folder(data_dir: str | os.PathLike, set_name: str, name: str) -> pathlib.Path:
    """Where the units of a set's records are kept; they need not exist."""
    return records.set_folder(data_dir, set_name) / FOLDER / name


def load_clustering(folder: pathlib.Path) -> Clustering | None:
    """The clustering in `folder`, or None; InputError when it is damaged."""
    if not (folder / META_FILE).is_file():
        return None
    said = _load_json(folder / META_FILE)
    try:
        centroids = np.load(opening.checked(folder / CENTROIDS_FILE), allow_pickle=False)
        found = Clustering(centroids, said["rate_hz"], said["features"], said["made_with"])
    except (OSError, ValueError, KeyError) as error:
        raise errors.InputError(
            f"the clustering in {folder} is damaged ({error}): delete it and make it anew"
        ) from error
    if found.fingerprint != said["fingerprint"]:
        raise errors.InputError(f"{folder / CENTROIDS_FILE} is not what was saved: delete {folder} and make it anew")
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """The units of one prepared set: record i has flat[ends[i - 1]:ends[i]]. `prepared` is the set's fingerprint."""

    folder: pathlib.Path
    flat: UInt16[np.ndarray, " n"]
    ends: Int64[np.ndarray, " r"]
    prepared: str
    clustering: str
    clusters: int
    rate_hz: float

    @property
    def begins(self) -> Int64[np.ndarray, " r"]:
        # ends 3 3 5  ->  begins 0 3 3; the cut makes [] of the [0] that a set without records would get.
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])[: len(self.ends)]

    def of(self, row: int) -> UInt16[np.ndarray, " t"]:
        """The units of one record."""
        return self.flat[self.begins[row] : self.ends[row]]


def load_units(folder: pathlib.Path) -> Units | None:
    """The units in `folder`, memory-mapped, or None; InputError when they are damaged."""
    if not (folder / META_FILE).is_file():
        return None
    said = _load_json(folder / META_FILE)
    try:
        # An empty file cannot be mapped.
        mapped = "r" if said["frames"] else None
        flat = np.load(opening.checked(folder / UNITS_FILE), mmap_mode=mapped, allow_pickle=False)
        ends = np.load(opening.checked(folder / ENDS_FILE), allow_pickle=False)
        fields = {key: said[key] for key in ("prepared", "clustering", "clusters", "rate_hz")}
    except (OSError, ValueError, KeyError) as error:
        raise errors.InputError(
            f"the units in {folder} are damaged ({error}): delete them and make them anew"
        ) from error
    if len(flat) != said["frames"] or ends.max(initial=0) != len(flat):
        raise errors.InputError(f"{folder} holds {len(flat)} units and should hold {said['frames']}: make them anew")
    return Units(folder, flat, ends, **fields)


class FrameTargets:
    """HuBERT's targets: the class of every encoder frame of a crop, for a corpus of several sets.

    The alignment is that of fairseq's HubertDataset and HubertModel.forward_targets. A crop from sample s begins at
    unit round(s * rate) and holds round(length * rate) units, or what is left of the clip. Frame k reads unit
    floor(k * units per frame), and has no target unless all units of the frame are there:

        units at 100 Hz    | 0 | 1 | 2 | 3 | 4 | 5 | 6 |      7 units, 2 a frame
        frames at 50 Hz    |   0   |   1   |   2   |   -      reads units 0, 2, 4; unit 6 is half a frame

    A class is a cluster + FIRST_CLASS. Pickles as its paths, so that reading processes map the files themselves.
    """

    def __init__(self, folders: Sequence[pathlib.Path], hop_samples: int, bucket_frames: Mapping[int, int]):
        """`folders` in the order of the corpus's sets; `bucket_frames`: samples of a bucket -> encoder frames."""
        self._arguments = (tuple(folders), hop_samples, dict(bucket_frames))
        self.parts = [load_units(folder) for folder in folders]
        # Sets of 3 and 2 records:   _first 0 3 5   corpus rows 0 1 2 | 3 4
        self._first = np.cumsum([0, *(len(part.ends) for part in self.parts)])
        self._begins = [part.begins for part in self.parts]
        self.clustering, self.rate_hz = self.parts[0].clustering, self.parts[0].rate_hz
        self._per_frame = self.rate_hz * hop_samples / audio.RATE_HZ

    def __reduce__(self):
        return FrameTargets, self._arguments

    def frames(self, bucket: int) -> int:
        """Encoder frames of a row in a bucket of so many samples."""
        return self._arguments[2][bucket]

    def classes(
        self, index: Int[np.ndarray, "*g"], start: Int[np.ndarray, "*g"], lengths: Int[np.ndarray, "*g"], bucket: int
    ) -> Int32[np.ndarray, "*g t"]:
        """Classes of crops (corpus row, first sample, samples) in a bucket of samples; -1 where there is no unit."""
        frames = np.arange(self.frames(bucket))
        taken = np.floor(frames * self._per_frame).astype(np.int64)
        out = np.full((*index.shape, len(frames)), -1, np.int32)
        # Side "right" counts the sets that begin at or before a row: row 3 -> 2, so set 1.
        number = np.searchsorted(self._first, index, side="right") - 1  # EMPTY rows get -1, which is no set
        for k, part in enumerate(self.parts):
            own = number == k
            row = index[own] - self._first[k]
            # rint rounds halves to even, as Python's round does in fairseq.
            first = np.rint(start[own] * self.rate_hz / audio.RATE_HZ).astype(np.int64)
            begin = self._begins[k][row] + first
            # Start and length are rounded separately, so that their sum may pass the clip's end: hence the minimum.
            size = np.minimum(np.rint(lengths[own] * self.rate_hz / audio.RATE_HZ), part.ends[row] - begin)
            there = (frames + 1) * self._per_frame <= size[:, None]
            # Absent units are read at place 0 and dropped in the next line: no index leaves the file.
            place = np.where(there, begin[:, None] + taken, 0)
            out[own] = np.where(there, part.flat[place].astype(np.int32) + FIRST_CLASS, -1) if place.size else -1
        return out


def units_of(
    targets: FrameTargets | None, layout: batch_layout.BatchLayout, rows: batch_layout.HostRows
) -> dict[str, Int32[np.ndarray, "g u"]]:
    """What a batch of `rows` gains for a family that reads units: "units", those of a group's rows one after another.

    Buffers are as long as the longest of any bucket, -1 at their ends.
    """
    if targets is None:
        return {}
    frames = [layout.group_rows_of(b) * targets.frames(samples) for b, samples in enumerate(layout.bucket_samples)]
    out = np.full((len(rows.bucket), max(frames)), -1, np.int32)
    for b, samples in enumerate(layout.bucket_samples):
        own, places = rows.bucket == b, layout.group_rows_of(b)
        crops = (x[own, :places] for x in (rows.index, rows.start, rows.lengths))
        out[own, : frames[b]] = targets.classes(*crops, samples).reshape(-1, frames[b])
    return {"units": out}


def targets_for_run(config: Any, model: Any, corpus: Any, workdir: pathlib.Path, *, copy: bool) -> FrameTargets | None:
    """The targets of a run, made of the units that `config.units` names; None for a family that needs none.

    A run reads its own copy of the units if it has one, so that it can be resumed without the originals. Otherwise it
    reads those in `config.data_dir`; with `copy` it then copies them and their clustering into `workdir`. InputError
    when they are missing, belong to other records or do not fit the model.
    """
    if not hasattr(model, "label_rate_hz"):
        return None
    if not config.units:
        raise errors.InputError("units is empty: make some with tools/units.py and name them by --config.units=NAME")
    kept = workdir / FOLDER / config.units
    sources = [_source(config, kept, set_name) for set_name in corpus.names]
    loaded = [load_units(folder) for folder in sources]
    for set_name, found, prepared in zip(corpus.names, loaded, corpus.fingerprints):
        _check_fit(config.units, set_name, found, prepared, loaded[0], model)
    if copy:
        _copy(clustering_folder(config.data_dir, config.units), kept)
        for set_name, folder in zip(corpus.names, sources):
            _copy(folder, kept / set_name)
    e = model.encoder
    buckets = {samples: e.frames(samples) for samples in config.bucket_samples}
    return FrameTargets(sources, int(np.prod(e.conv_strides)), buckets)


def _source(config: Any, kept: pathlib.Path, set_name: str) -> pathlib.Path:
    own, there = kept / set_name, units_folder(config.data_dir, set_name, config.units)
    if not any((folder / META_FILE).is_file() for folder in (own, there)):
        made = sorted(path.parent.name for path in there.parent.glob(f"*/{META_FILE}"))
        raise errors.InputError(
            f"set {set_name} has no units {config.units} (it has {', '.join(made) or 'none'}): run "
            f"`voc2vec units {config.units} --data_dir={config.data_dir} --sets={set_name}`"
        )
    return own if (own / META_FILE).is_file() else there


def _check_fit(name: str, set_name: str, found: Units, prepared: str, first: Units, model: Any) -> None:
    if found.prepared != prepared:
        raise errors.InputError(
            f"the units {name} in {found.folder} are of other records of {set_name}: make them anew with tools/units.py"
        )
    if found.clustering != first.clustering:
        raise errors.InputError(
            f"the units {name} in {found.folder} and in {first.folder} come from two clusterings: make them anew with "
            "tools/units.py"
        )
    # The model must have a class for each cluster, and as many units a second as its targets are read at.
    wanted = {"label_rate_hz": found.rate_hz, "classes": found.clusters + FIRST_CLASS}
    differing = {field: value for field, value in wanted.items() if getattr(model, field) != value}
    if differing:
        overrides = " ".join(f"--config.model.{field}={value}" for field, value in differing.items())
        raise errors.InputError(
            f"the units {name} are {found.clusters} clusters at {found.rate_hz:g} Hz, the model expects "
            f"{model.classes - FIRST_CLASS} at {model.label_rate_hz:g} Hz: add {overrides}"
        )


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the files of a folder. The file that marks it as complete comes last."""
    if source == target or (target / META_FILE).is_file() or not (source / META_FILE).is_file():
        return
    target.mkdir(parents=True, exist_ok=True)
    # Each file appears whole under its name, and the folder counts from its last file on.
    for name in (CENTROIDS_FILE, ENDS_FILE, UNITS_FILE, META_FILE):
        if (source / name).is_file():
            with files.atomic_path(target / name) as temporary:
                shutil.copyfile(source / name, temporary)


def clustering_of_run(source: str) -> str | None:
    """Fingerprint of the clustering that a run folder was trained on; None for any other source."""
    folder = pathlib.Path(source)
    if not (folder / FOLDER).is_dir() or not (folder / "config.json").is_file():
        return None
    name = _load_json(folder / "config.json").get("units")
    # The run's own copy, which stays when data_dir makes its clustering anew.
    found = load_clustering(folder / FOLDER / name) if name else None
    return found and found.fingerprint


def save_array(path: pathlib.Path, array: np.ndarray) -> None:
    """Write a `.npy` file, whole or not at all."""
    with files.atomic(path) as file:
        np.save(file, array, allow_pickle=False)


def save_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Write an object as JSON, whole or not at all."""
    files.write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def _load_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return opening.read_json(path)
    except ValueError as error:
        raise errors.InputError(f"{path} is damaged ({error}): delete its folder and make it anew") from error
