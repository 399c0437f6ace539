"""Fixed features of a task's clips: openSMILE's functionals, a frozen model's layers, or a file of the user's own.

Features are kept in `cache_dir` under a name that depends on the audio, the model's parameters and the options; blocks
that are done survive a kill. openSMILE is an optional extra that never comes with this package: it is under
audEERING's research licence, for non-commercial research only, its features included
(https://www.audeering.com/research/opensmile).

n = clips, d = width, l = layers.
"""

import contextlib
import hashlib
import importlib
import io
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
from jaxtyping import Float32, Int64

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.datasets import progress, worker_processes
from voc2vec_jax.finetuning import tasks
from voc2vec_jax.runs import extras, files, logs

FEATURE_SETS = {"ComParE_2016": 6373, "eGeMAPSv02": 88}  # name: width
OPENSMILE_SAMPLES = 960  # 60 ms: openSMILE returns NaN for less
BLOCK_CLIPS = 512  # a kill costs at most this much work
BATCH_CLIPS = 4  # what a worker takes at a time
LICENCE = (
    "openSMILE is under audEERING's research licence: non-commercial research only, its features included "
    "(https://www.audeering.com/research/opensmile)"
)


def features(
    task: tasks.Task,
    source: str,
    *,
    layer: int | str = -1,
    context: str = "auto",
    cache_dir: str | os.PathLike,
    workers: int | None = None,
) -> Float32[np.ndarray, "n *d"]:
    """Features of every clip; `source` names one of FEATURE_SETS, an `.npz` file, or a model (in `context`)."""
    if source in FEATURE_SETS:
        return opensmile(task, source, cache_dir=cache_dir, workers=workers)
    if str(source).endswith(".npz"):
        return read_features(source, task)
    return model_features(task, source, layer, context, cache_dir=cache_dir)


def least_samples(source: str) -> int:
    """The fewest samples at 16 kHz that `source` makes features of."""
    return OPENSMILE_SAMPLES if source in FEATURE_SETS else tasks.LEAST_SAMPLES


def opensmile(
    task: tasks.Task, feature_set: str = "ComParE_2016", *, cache_dir: str | os.PathLike, workers: int | None = None
) -> Float32[np.ndarray, "n d"]:
    """openSMILE's functionals of every clip, unscaled (ComParE_2016 reaches 1e11), for non-commercial research only.

    Computed by `workers` processes, one for each core by default, because openSMILE is not thread-safe. InputError
    without the package, for an unknown set, and for clips that are too short, which are named.
    """
    if feature_set not in FEATURE_SETS:
        raise errors.InputError(f"{feature_set!r} is no set of features: choose one of {', '.join(FEATURE_SETS)}")
    logs.say(LICENCE)
    _check_lengths(task, OPENSMILE_SAMPLES, f"openSMILE's {feature_set}")
    version = _opensmile().__version__
    path = _cache_path(cache_dir, task, feature_set, f"openSMILE {version} {feature_set} functionals")
    with _opensmile_workers(task, feature_set, workers or worker_processes.cores()) as compute:
        return _cached(path, task, feature_set, compute)


def _opensmile():
    try:
        return importlib.import_module("opensmile")
    except ImportError:
        raise errors.InputError(
            f"the system opensmile needs a package that is not installed: {extras.command('opensmile')} (for "
            "non-commercial research only), or give features of your own with --config.features=FILE.npz"
        ) from None


@contextlib.contextmanager
def _opensmile_workers(task: tasks.Task, feature_set: str, workers: int) -> Iterator[Callable]:
    """Yields a function that computes the features of some rows in worker processes."""
    # Started with the first call: a run whose blocks are all in the cache starts none.
    made: list[worker_processes.Pool] = []

    def compute(rows: Int64[np.ndarray, "n"], advance: Callable[[int], object]) -> Float32[np.ndarray, "n d"]:
        if not made:
            processes = min(workers, -(-len(task) // BATCH_CLIPS))
            made.append(worker_processes.Pool(processes, _start_worker, (task, feature_set)))
        batches = [rows[at : at + BATCH_CLIPS] for at in range(0, len(rows), BATCH_CLIPS)]
        jobs = [made[0].submit(_functionals, batch) for batch in batches]
        try:
            # Counted as they end, in any order; the result below keeps the order of the rows.
            for job in futures.as_completed(jobs):
                advance(len(job.result()))
        except futures.process.BrokenProcessPool as error:
            raise errors.RunError(
                "an openSMILE process died, perhaps for want of memory: run again to continue"
            ) from error
        return np.concatenate([job.result() for job in jobs])

    try:
        yield compute
    finally:
        for pool in made:
            pool.shutdown(wait=True, cancel_futures=True)


# A worker's task and extractor: sent once when it starts, and not with each of its jobs.
_worker: tuple = ()


def _start_worker(task: tasks.Task, feature_set: str) -> None:
    global _worker
    _worker = task, _smile(feature_set)


def _smile(feature_set: str):
    package = _opensmile()
    return package.Smile(
        feature_set=getattr(package.FeatureSet, feature_set), feature_level=package.FeatureLevel.Functionals
    )


def _functionals(rows: Int64[np.ndarray, "n"]) -> Float32[np.ndarray, "n d"]:
    task, smile = _worker
    clips = task.read(rows)
    found = [smile(audio.from_int16(clip), audio.RATE_HZ) for clip in clips]
    return np.stack([np.asarray(one, np.float32).reshape(-1) for one in found])


def model_features(
    task: tasks.Task, source: str, layer: int | str = -1, context: str = "auto", *, cache_dir: str | os.PathLike
) -> Float32[np.ndarray, "n *d"]:
    """The mean over frames of a frozen model's layer, [n, d]; with `layer` "all" of every layer, [n, l, d].

    `source` is what `pretrained.from_pretrained` takes, and `layer` what `Model.embed` takes. InputError for clips
    shorter than one frame of the model, which are named.
    """
    # Imported here, because openSMILE's workers need no JAX
    from voc2vec_jax.inference import pretrained as inference_pretrained

    model = inference_pretrained.from_pretrained(source, context=context)
    encoder = model.config.encoder
    _check_lengths(task, encoder.samples_for(1), str(source))
    # A numbered layer is wanted by a probe, which will ask for the others next: one pass computes and keeps them all.
    every = layer == "all" or layer >= 0
    if every and layer != "all" and layer > encoder.depth:
        raise errors.InputError(f"layer {layer} is not there: {source} has layers 0 to {encoder.depth}")

    def compute(rows: Int64[np.ndarray, "n"], advance: Callable[[int], object]) -> Float32[np.ndarray, "n *d"]:
        found = model.embed(task.read(rows), sampling_rate=model.sampling_rate, layer="all" if every else layer)
        advance(len(rows))
        return found

    options = f"model {model_digest(model.checkpoint)} mean {'all' if every else layer}"
    found = _cached(_cache_path(cache_dir, task, str(source), options), task, str(source), compute)
    return found[:, layer] if every and layer != "all" else found


def model_digest(checkpoint) -> str:
    """SHA-256 of all that a model's features depend on."""
    from voc2vec_jax.convert import digest as convert_digest

    settings = (checkpoint.family, checkpoint.config, checkpoint.normalizes, checkpoint.eps)
    return convert_digest.digest(checkpoint.params["encoder"], settings, shapes=True)


def read_features(path: str | os.PathLike, task: tasks.Task) -> Float32[np.ndarray, "n d"]:
    """The vectors of the task's clips from an `.npz` file of `ids` [m] and `vectors` [m, d].

    `ids` are text, as in predictions.csv, and may hold other clips too. InputError for clips that the file lacks or
    whose vectors are not finite, which are named, and for arrays of another form.
    """
    try:
        with np.load(opening.checked(path), allow_pickle=False) as arrays:
            ids, vectors = arrays["ids"], arrays["vectors"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise errors.InputError(f"{path} holds no features ({error}): save ids (text) and vectors in it") from error
    if ids.dtype.kind != "U" or vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or ids.shape != vectors.shape[:1]:
        raise errors.InputError(
            f"{path} has ids {ids.dtype}{ids.shape} and vectors {vectors.dtype}{vectors.shape}: give text [n] "
            "and numbers [n, d]"
        )
    place = {name: row for row, name in enumerate(ids.tolist())}
    if len(place) != len(ids):
        raise errors.InputError(f"{path} has {len(ids) - len(place)} ids more than once: keep one vector of each")
    lacking = [name for name in task.ids.tolist() if name not in place]
    if lacking:
        raise errors.InputError(
            f"{path} has no vector for {len(lacking)} of {len(task)} clips ({tasks.shown(lacking)}): add them, "
            "under the ids of the task"
        )
    found = vectors[[place[name] for name in task.ids.tolist()]].astype(np.float32)
    _check_finite(found, task, str(path))
    return found


def _check_lengths(task: tasks.Task, least: int, source: str) -> None:
    short = task.ids[task.samples < least].tolist()
    if short:
        raise errors.InputError(
            f"{errors.counted(len(short), 'clip')} shorter than the {least} samples that {source} needs "
            f"({tasks.shown(short)}): leave out what is shorter"
        )


def _check_finite(found: Float32[np.ndarray, "n *d"], task: tasks.Task, source: str) -> None:
    bad = task.ids[~np.isfinite(found.reshape(len(found), -1)).all(1)].tolist()
    if bad:
        raise errors.InputError(
            f"the features of {source} are NaN or infinite for {len(bad)} of {len(task)} clips ({tasks.shown(bad)}): "
            "leave these clips out"
        )


def _cache_path(cache_dir: str | os.PathLike, task: tasks.Task, source: str, options: str) -> pathlib.Path:
    """The file for these features; its name changes with everything that they depend on."""
    # Nothing stale can be read: other audio, weights or options look for a file of another name.
    last = re.sub(r"[^\w.-]+", "-", pathlib.PurePath(source).name)
    # Version 0.1.0 computed them again for other labels or groups of the same clips; what it left is still right.
    keys = (hashlib.sha256(f"{of} {options}".encode()).hexdigest() for of in (task.fingerprint, tasks.audio_key(task)))
    of_task, of_audio = (pathlib.Path(cache_dir) / f"{task.name}-{last}-{key[:16]}.npz" for key in keys)
    return of_task if of_task.is_file() else of_audio


def _cached(path: pathlib.Path, task: tasks.Task, source: str, compute: Callable) -> Float32[np.ndarray, "n *d"]:
    """`compute(rows, advance)` for all rows, or what `path` holds; finished blocks survive a kill."""
    if (whole := _load(path)) is not None:
        return whole
    parts = {}
    with progress.shown(f"{source} of {task.name}", len(task), 0, "clips", True) as advance:
        for start in range(0, len(task), BLOCK_CLIPS):
            rows = np.arange(start, min(start + BLOCK_CLIPS, len(task)))
            part = path.with_suffix(f".{rows[0]}-{rows[-1]}.part.npz")
            if (kept := _load(part)) is not None:
                parts[part] = kept
                advance(len(rows))
            else:
                parts[part] = compute(rows, advance)
                _save(part, task.ids[rows], parts[part])
    # The whole file first, then the parts are removed: a kill between the two leaves too much, never too little.
    found = np.concatenate(list(parts.values()))
    _check_finite(found, task, source)
    _save(path, task.ids, found)
    for part in parts:
        part.unlink(missing_ok=True)  # another run with the same features may have removed it
    return found


def _load(path: pathlib.Path) -> Float32[np.ndarray, "n *d"] | None:
    """The vectors of a file, None where there is none; InputError where it is damaged."""
    try:
        with np.load(opening.checked(path), allow_pickle=False) as arrays:
            return arrays["vectors"]
    except FileNotFoundError:  # no question before: another run with the same features removes the parts when it ends
        return None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise errors.InputError(f"{path} is damaged ({error}): delete it, and it is computed again") from error


def _save(path: pathlib.Path, ids: np.ndarray, vectors: Float32[np.ndarray, "n *d"]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, ids=ids, vectors=vectors)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise errors.RunError(f"{path} cannot be written ({error.strerror}): free the disk and run again") from error
