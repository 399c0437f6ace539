"""Which clips of a run validate and which are left out, decided when it begins and kept in its folder.

`RUN/validation.json` names the clips held out for validation and the sets that were split, so that no clip that was
trained on validates later, whatever sets join the run. `RUN/excluded.txt` names the clips of `exclude`.
"""

import csv
import dataclasses
import difflib
import hashlib
import json
import pathlib
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Int64

from voc2vec_jax import errors, opening
from voc2vec_jax.datasets import corpora
from voc2vec_jax.pretraining import batch_plan
from voc2vec_jax.runs import csv_files, files

VALIDATION, EXCLUDED = "validation.json", "excluded.txt"


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a run folder says of its clips: the ids held out, the sets they were taken from, and the ids left out."""

    sets: tuple[str, ...] = ()
    validation: frozenset[str] = frozenset()
    excluded: tuple[str, ...] = ()


NOTHING = Kept()


def kept(workdir: pathlib.Path) -> Kept:
    """What the files of a run folder say; empty where they are absent. InputError for damaged ones."""
    split, listed = workdir / VALIDATION, workdir / EXCLUDED
    sets, validation = (), ()
    try:
        if split.is_file():
            content = opening.read_json(split)
            sets, validation = tuple(content["sets"]), content["clips"]
        excluded = tuple(opening.read_text(listed).splitlines()) if listed.is_file() else ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.InputError(
            f"{split} or {listed} is damaged ({error}): restore it, or give another --workdir"
        ) from None
    return Kept(sets, frozenset(validation), excluded)


def keep(workdir: pathlib.Path, corpus: corpora.Corpus, valid: Int64[np.ndarray, "v"], excluded: Sequence[str]) -> None:
    """Write both files where they say something else."""
    clips = [corpus.ids(row) for row in valid]
    texts = {VALIDATION: json.dumps({"sets": list(corpus.names), "clips": clips}, indent=1) + "\n"}
    if excluded or (workdir / EXCLUDED).exists():
        texts[EXCLUDED] = "".join(f"{name}\n" for name in excluded)
    for name, text in texts.items():
        path = workdir / name
        if not path.is_file() or opening.read_text(path) != text:
            files.write_atomic(path, text.encode())


def read_list(path: str | pathlib.Path) -> list[str]:
    """The clip ids of a list: one a line, or the column `id` of a CSV. InputError when there is no such list."""
    path = pathlib.Path(path)
    try:
        with opening.regular(path, "r", encoding="utf-8", newline="") as file:
            lines = file.read().splitlines()
    except OSError as error:
        hint = files.similar(path) if isinstance(error, FileNotFoundError) else ""
        raise errors.InputError(f"exclude={path} cannot be read: {error.strerror}{hint}") from None
    except ValueError:
        raise errors.InputError(f"exclude={path} is no text: give a file with one clip id a line") from None
    header = next(csv.reader(lines[:1]), [])
    if "id" not in header:
        return [line for line in lines if line]
    try:
        return [row["id"] for row in csv_files.DictReader(lines, strict=True)]
    except csv.Error as error:
        raise errors.InputError(f"exclude={path} is no CSV: {error}") from None


def rows_of(corpus: corpora.Corpus, ids: Collection[str], *, of: str | None = None) -> Int64[np.ndarray, "n"]:
    """The corpus rows of some ids, ascending. With `of`, the list's name, InputError for an id that is not there."""
    if not ids:
        return np.zeros(0, np.int64)
    wanted = set(ids)
    found = {corpus.ids(row): row for row in range(len(corpus)) if corpus.ids(row) in wanted}
    unknown = sorted(name for name in wanted - found.keys() if name.partition("/")[0] in corpus.names)
    strange = sorted(name for name in wanted - found.keys() if "/" not in name)
    if of and (unknown or strange):
        name = (unknown or strange)[0]
        near = difflib.get_close_matches(name, [corpus.ids(row) for row in range(len(corpus))], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise errors.InputError(f"{of} names {name}, which is no clip of {', '.join(corpus.names)}{hint}")
    return np.sort(np.fromiter(found.values(), np.int64, len(found)))


def split(
    corpus: corpora.Corpus, share: float | int, seed: int, before: Kept
) -> tuple[Int64[np.ndarray, "t"], Int64[np.ndarray, "v"]]:
    """Training and validation rows, ascending: as `before` for sets it knows, by `batch_plan.split_rows` for others."""
    known = np.isin(corpus.names, before.sets)[corpus.set_index]
    held = np.isin(corpus.recording, corpus.recording[rows_of(corpus, before.validation)]) & known
    new = np.flatnonzero(~known)
    if len(np.unique(corpus.recording[new])) > 1 or not before.sets:
        _, valid = batch_plan.split_rows(corpus.recording[new], corpus.set_index[new], share, seed)
        held[new[valid]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def digest(ids: Collection[str]) -> str:
    """A fingerprint of some ids in any order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
