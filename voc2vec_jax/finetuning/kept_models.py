"""Which folds' models stay on disk, and whether the disk holds them.

all     every fold's
best    that of the fold with the best validation score; of equal ones, the first
lora    every fold's adapters and head, which need the source beside them
none    no fold's
"""

import math
import pathlib
import shutil
from collections.abc import Iterable, Mapping

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.finetuning import results
from voc2vec_jax.planning import report
from voc2vec_jax.runs import folder as run_folder
from voc2vec_jax.runs import logs

MODES = ("auto", "best", "all", "lora", "none", "true", "false")
_EARLIER = {"true": "all", "false": "none"}  # of version 0.1.0


def settle(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Put the mode in the place of "auto": that of the run in the folder, else adapters where there are any, else best.

    A run that was begun to keep every model must not lose them because it goes on under another default.
    """
    asked = str(config.save_models).lower()
    if asked == "auto":
        stored = str(run_folder.stored(workdir).get("save_models", "auto")).lower()
        asked = stored if stored != "auto" else "lora" if config.lora_rank and config.how == "finetune" else "best"
    config.save_models = _EARLIER.get(asked, asked)


def check(config: ml_collections.ConfigDict) -> None:
    """InputError for a mode that there is not."""
    asked = str(config.save_models).lower()
    if asked not in MODES:
        raise errors.InputError(f"save_models {config.save_models!r} is none of {', '.join(MODES[:5])}")
    if asked == "lora" and not config.lora_rank:
        raise errors.InputError("--config.save_models=lora keeps adapters: set --config.lora_rank=8, say")


def is_kept(mode: str, workdir: pathlib.Path, done: Iterable[int], fold: int, score: float) -> bool:
    """Whether the model of a fold with a validation score is to be written, beside those of the folds that are done."""
    if mode != "best":
        return mode != "none"
    best = _best(workdir, done)
    return best is None or (score, -fold) > (_score(workdir, best), -best)


def prune(mode: str, workdir: pathlib.Path, done: Iterable[int]) -> None:
    """Of the folds that are done, remove every model but the best one, where only that is kept."""
    done = list(done)
    best = _best(workdir, done) if mode == "best" else None
    if best is None:
        return
    for fold in done:
        place = results.fold_folder(workdir, fold) / "model"
        if fold != best:
            shutil.rmtree(place, ignore_errors=True)
            place.with_suffix(".npz").unlink(missing_ok=True)


def _score(workdir: pathlib.Path, fold: int) -> float:
    """A fold's validation score in its best epoch; below all others where a version did not write it."""
    return results.read_fold(workdir, fold).get("best_score", -math.inf)


def _best(workdir: pathlib.Path, done: Iterable[int]) -> int | None:
    return max(done, key=lambda fold: (_score(workdir, fold), -fold), default=None)


def check_space(workdir: pathlib.Path, mode: str, folds: int, sizes: Mapping[str, int]) -> None:
    """Say what `folds` more folds will take on disk; InputError when it has less free.

    `mode` may also be "final", the model of all clips.
    `sizes` in bytes: "model" of one fold's, "state" of all folds in progress, "saved" of those saved already.
    """
    # The new save is complete before the old one goes, and so is the model of a new best fold.
    models = sizes["model"] * {"none": 0, "best": min(2, folds)}.get(mode, folds)
    states = 2 * sizes["state"]
    needed, free = models + max(0, states - sizes["saved"]), shutil.disk_usage(workdir).free
    how = "final=true" if mode == "final" else f"save_models={mode}"
    said = f"models take up to {report.in_words(models)} ({how}), folds in progress {report.in_words(states)}"
    if needed > free:
        less = f"save_models={'best' if mode == 'all' else 'none'} or --config.folds_at_once=1"
        less = "final=false" if mode == "final" else less
        raise errors.InputError(
            f"{workdir} has {report.in_words(free)} free, but {said}: free the disk, give a --workdir on another one, "
            f"or set --config.{less}"
        )
    logs.say(f"on disk, {said}; {report.in_words(free)} are free")


def clear_checkpoints(workdir: pathlib.Path) -> None:
    """Remove the folds in progress of a run that has ended: several times the size of a model, and of no use."""
    for place in (workdir / "checkpoints", *workdir.glob("processes/*/checkpoints")):
        shutil.rmtree(place, ignore_errors=True)


def bytes_of(folder: pathlib.Path) -> int:
    """The size of all files of a folder; 0 if it is absent."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
