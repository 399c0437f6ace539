"""Which model of a run of fine-tuning is meant by a folder: RUN/final, RUN/fold_03, RUN, or a folder of runs."""

import pathlib

from voc2vec_jax import errors, opening
from voc2vec_jax.runs import logs

_DEEPEST = 3  # folders between a folder and the runs that are looked for in it: a data set, a system, a seed


def is_fold(folder: pathlib.Path) -> bool:
    """Whether this is the folder of a fold, or `final`, with its model in it."""
    return (folder / "model" / "config.json").is_file()


def of_folds(folder: pathlib.Path) -> pathlib.Path:
    """The model of a cross-validation: the one trained on all clips, else the only one that was kept.

    InputError without any, and for several folds' models, where the best by validation is named.
    """
    if (folder / "final" / "final.json").is_file():
        found = [folder / "final" / "model"]
    else:
        found = sorted(path.parent for path in folder.glob("fold_*/model/config.json"))
    if not found:
        again = "run it again with --config.final=true for one of all clips, in RUN/final"
        raise errors.InputError(f"{folder} is a cross-validation that has kept no model: {again}")
    if len(found) > 1:
        best = max(found, key=_score)
        raise errors.InputError(
            f"{folder} holds the models of {len(found)} folds; give one of them, such as the best, {best}"
        )
    logs.say(f"{folder} is a cross-validation: taken is {found[0]}")
    return found[0]


def below(folder: pathlib.Path) -> str:
    """The remedy for a folder that is no model: the models of runs in it, if there are any."""
    for depth in range(_DEEPEST + 1):
        above = "*/" * depth
        for pattern in (f"{above}final/model", f"{above}fold_*/model"):
            found = sorted(path.parent for path in folder.glob(f"{pattern}/config.json"))
            if found:
                many = "a model" if len(found) == 1 else f"{len(found)} models"
                return f"it holds {many} of runs: give one, such as {max(found, key=_score)}"
    runs = sorted(path.parent for path in folder.glob("*/checkpoints"))
    return f"it holds runs: give one, such as {runs[0]}" if runs else "give the folder of one"


def _score(model: pathlib.Path) -> float:
    """The validation score of a fold's model; lowest where none is written."""
    try:
        return float(opening.read_json(model.parent / "fold.json")["best_score"])
    except (OSError, ValueError, KeyError, TypeError):
        return float("-inf")
