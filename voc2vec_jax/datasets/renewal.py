"""A set that is there already: whether its files are what they were, and how a new one takes its place."""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Int64

from voc2vec_jax import errors, opening
from voc2vec_jax.datasets import file_states, listings, records
from voc2vec_jax.runs import logs

ROUNDING = 2  # of int16, by which two decoders of MP3 differ
DESCRIBING = ("recording", "group", "label", "start_sample", "ids", "recordings", "groups", "labels")


class Difference(NamedTuple):
    """How a set differs from what would be prepared now.

    `kind`: "" (it does not), "listing" (other recordings), "unknown" (an earlier version did not note the states of
    files, or read them by other decoders), "changed" (files), or "gone" (files, and none has changed). `remake` says
    whether preparing again loses nothing.
    """

    kind: str
    sentence: str = ""
    remake: bool = False

    @property
    def changed(self) -> str:
        """The sentence, where the recordings are known to be others."""
        return self.sentence if self.kind in ("listing", "changed") else ""


def difference(
    prepared: records.PreparedSet, listing: listings.Listing, states: Int64[np.ndarray, "n 2"]
) -> Difference:
    """How a set differs from its `listing`, whose files have these states."""
    report, names, now = prepared.report, listing.recordings, len(listing.recordings)
    # The digest of an earlier version holds sizes too: there, a file of another size is another recording.
    same = listings.digest(listing, sizes=False) == report.get("recordings")
    if not same and listings.digest(listing) != report["listing"]:
        return Difference("listing", f"was prepared from other recordings ({report['listed']} then, {now} now)")
    before = file_states.load(prepared.folder, report.get("sources"))
    absent = int((states == file_states.GONE).all(1).sum())
    if before is None or report.get("decoders") != records.DECODERS:
        if not absent:
            return Difference("unknown", "was prepared by an earlier version", remake=True)
        return Difference("unknown", f"was prepared by an earlier version, and {absent} of its files are not there")
    changed, gone = file_states.compare(before, states)
    if len(changed):
        shown = file_states.example(names[changed[0]].path, before[changed[0]], states[changed[0]])
        lost = f", and {len(gone)} are gone, such as {names[gone[0]].path}" if len(gone) else ""
        sentence = f"was prepared before {len(changed)} of its {now} recordings changed, such as {shown}{lost}"
        return Difference("changed", sentence, remake=not len(gone))
    if len(gone):
        sentence = f"holds {errors.counted(len(gone), 'recording')} whose files are gone, such as {names[gone[0]].path}"
        return Difference("gone", sentence)
    return Difference("")


def is_kept(
    data_dir: pathlib.Path,
    name: str,
    listing: listings.Listing,
    states: Int64[np.ndarray, "n 2"],
    renew: bool,
    replace: bool = False,
) -> bool:
    """Whether a set is there and stays; with `renew`, one whose files have changed does not, which is said.

    With `replace` neither does one of other recordings. The old one goes when the new one is complete.

    InputError for a set of another listing, for one whose files have changed without `renew`, and for one that could
    only be prepared again without files that are gone.
    """
    folder = records.set_folder(data_dir, name)
    if not folder.exists():
        return False
    found = difference(records.open_set(data_dir, name, warn=False), listing, states)
    refused = found.kind == "listing" or (found.kind == "changed" and not renew)
    if refused and not replace:
        raise errors.InputError(f"{folder} {found.sentence}: add --renew to prepare it anew, or choose another --name")
    if found.kind == "changed" and not found.remake:
        raise errors.InputError(f"{folder} {found.sentence}: bring these back, or take them off the list")
    if found.kind == "listing" or ((renew or replace) and found.remake):
        logs.say(f"{name} {found.sentence}: it is prepared anew")
        return False
    if found.kind == "gone" or (renew and found.kind):
        logs.warn(f"{name} {found.sentence}: it is used as it was prepared")
    return True


@contextlib.contextmanager
def locked(data_dir: pathlib.Path, name: str, part: tuple[int, int] | None) -> Iterator[None]:
    """Refuses to run beside a process that makes the same part, or any part beside the whole set."""
    folder = data_dir / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mine = (folder / (f".lock-{part[0]}-of-{part[1]}" if part else ".lock")).open("w")
    except OSError as error:
        raise errors.InputError(f"{folder} cannot be written ({error.strerror}): choose another --data_dir") from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(mine)
        _lock(mine, folder)
        for path in () if part else folder.glob(".lock-*"):
            _lock(stack.enter_context(path.open("w")), folder)
        if not part:
            _recover(records.set_folder(data_dir, name))
        yield


def _lock(file: IO[str], folder: pathlib.Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise errors.InputError(f"{folder} is being prepared by another process: wait for it") from error


def put(made: pathlib.Path, folder: pathlib.Path) -> None:
    """The complete set in `made` becomes `folder`, in place of an older one, which is never without a copy on disk.

    An older set of the same records stays, with all that was computed from it; only what it says of its files changes.
    So does one of an earlier version whose audio differs by no more than decoders do.
    """
    if not folder.exists():
        os.replace(made, folder)
        return
    same = records.fingerprint(made) == records.fingerprint(folder)
    if same or _differs_by_decoders(made, folder):
        # A kill between the two leaves states that do not fit their digest: they count as unknown.
        for name in (file_states.FILE, records.REPORT_FILE):
            os.replace(made / name, folder / name)
        shutil.rmtree(made)
        rounding = "" if same else f", but for {ROUNDING} of 32,768 at most, by which decoders differ: those stay"
        logs.say(f"{folder.parent.name}: the records are the same as before{rounding}")
        return
    old = _old(folder)
    os.replace(folder, old)
    os.replace(made, folder)
    shutil.rmtree(old)


def _differs_by_decoders(made: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether a set of an earlier version holds the same recordings, each sample within the rounding of decoders."""
    new, old = records.open_folder(made, folder.parent.name), records.open_folder(folder, folder.parent.name)
    if "decoders" in old.report or len(new) != len(old) or (new.samples != old.samples).any():
        return False
    mine, theirs = (opening.checked(each / records.INDEX_FILE) for each in (made, folder))
    with np.load(mine) as index, np.load(theirs) as before:
        if any(not np.array_equal(index[name], before[name]) for name in DESCRIBING):
            return False
    return all(
        np.abs(new.read([row])[0].astype(np.int32) - old.read([row])[0]).max() <= ROUNDING for row in range(len(new))
    )


def _recover(folder: pathlib.Path) -> None:
    """Ends a `put` that was killed."""
    old = _old(folder)
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    elif old.exists():
        shutil.rmtree(old)


def _old(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f"{folder.name}.old")
