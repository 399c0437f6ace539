"""Checkpoints that are complete or absent: Orbax writes the arrays, then a manifest of SHA-256 hashes marks them whole.

RUN/checkpoints/<step>/ and RUN/best/<step>/ hold `state/` (Orbax), `metadata.json` and `manifest.json`. A folder
without a manifest is half-written. The best is for use and not to resume from: of the state it holds the parameters
alone (`_OF_BEST`), a third of what Adam needs. A restore renames what it passes over: `<step>.corrupt` stays for you to
look at, `<step>.partial` is deleted once a newer checkpoint is complete.

Not `orbax.checkpoint.CheckpointManager` (measured with 0.12.8): it restores an array with flipped bytes in silence,
takes a step with a missing data file for the newest, and reports a failed background save not in `check_for_errors` but
only in the next save, in many lines. It would take our folders without a manifest, half-written, for complete ones.
"""

import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from voc2vec_jax import errors, opening, printable
from voc2vec_jax.runs import agreement, logs, manifest, orbax_files, orbax_noise

_UNREADABLE = "is as its manifest says, but its arrays cannot be read; take another checkpoint"
_MOST_METADATA_BYTES = 64_000_000
_OWN_ARRAYS = "arrays.npz"  # of a process with a run of its own
_OF_BEST = ("params", "ema")  # entries of the state that the best holds, of those that there are


def _leaves(tree: Any) -> dict[str, Any]:
    """Leaves by name, such as `opt/0/mu/encoder/norm/scale`."""
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}


def _kind(leaf: Any) -> str:
    """Type and shape of an array as `float32[3,4]`."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _of_best(entries: Collection[str]) -> list[str]:
    """The entries of a state that the best holds; all of a state without parameters."""
    return [name for name in _OF_BEST if name in entries] or list(entries)


def _snapshot(state: Any) -> Any:
    """A copy with the same sharding, so that the caller may donate or overwrite the original."""

    def copy(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"a typed key cannot be saved: {jax.tree_util.keystr(path)}; keep its seed instead")
        return jnp.copy(leaf) if isinstance(leaf, jax.Array) else np.array(leaf)

    return jax.tree_util.tree_map_with_path(copy, state)


def steps(folder: str | pathlib.Path) -> list[int]:
    """Steps of the complete checkpoints in RUN/checkpoints or RUN/best, ascending. Their bytes are not checked."""
    return [step for step, path in _numbered(pathlib.Path(folder)) if manifest.exists(path)]


def _numbered(folder: pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    if not folder.is_dir():
        return []
    return sorted((int(path.name), path) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def read(folder: str | pathlib.Path, subtree: str | None = None) -> tuple[Any, dict[str, Any]]:
    """State and metadata of one checkpoint folder, as nested dicts of NumPy arrays; no model is needed.

    `subtree`, such as "params", reads only that entry. InputError when the folder is not intact or lacks the entry.
    """
    orbax_noise.silence()
    folder = pathlib.Path(folder).absolute()
    found = manifest.fault(folder)
    if found:
        raise errors.InputError(f"{folder} is no intact checkpoint: {found}")
    metadata = opening.read_object(folder / "metadata.json", _MOST_METADATA_BYTES)
    try:
        orbax_files.check(folder / "state")
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            tree = orbax_files.tree(checkpointer.metadata(folder / "state"))
            if subtree is None or subtree in tree:
                wanted = tree if subtree is None else {subtree: tree[subtree]}
                orbax_files.check_claims(folder / "state", wanted)
                state = _read_arrays(checkpointer, folder, wanted)
                return (state if subtree is None else state[subtree]), metadata
    except errors.InputError:
        raise
    except Exception as error:  # Orbax raises of any kind for files that are damaged under right hashes
        raise errors.InputError(f"{folder} {_UNREADABLE}: {orbax_noise.reason(error)}") from error
    raise errors.InputError(f"{folder} holds no {subtree!r}, only {printable.name(', '.join(tree))}")


def _read_arrays(checkpointer: ocp.Checkpointer, folder: pathlib.Path, wanted: Any) -> Any:
    """The leaves of a part of the metadata's tree, as NumPy arrays."""
    arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=arguments, partial_restore=True)
    return checkpointer.restore(folder / "state", args=arguments)


class Checkpoints:
    """Writer and reader of RUN/checkpoints and RUN/best. All processes call the same methods in the same order.

    Every process writes its part; process 0 hashes and decides. With `alone`, each process has a run of its own and
    its arrays on its own devices.

    The newest `keep` checkpoints stay, and those whose step is a multiple of `keep_every_steps`. Others are removed
    only after a newer one is complete.
    """

    def __init__(
        self, run: str | pathlib.Path, keep: int = 3, keep_every_steps: int | None = None, *, alone: bool = False
    ) -> None:
        if keep < 1:
            raise errors.InputError(f"{keep} checkpoints cannot be kept: keep at least 1")
        self.folder = pathlib.Path(run).absolute() / "checkpoints"
        self.best_folder = self.folder.with_name("best")
        self._keep = keep
        self._keep_every_steps = keep_every_steps
        orbax_noise.silence()
        self._alone = alone and agreement.process_count() > 1
        self._leads = self._alone or agreement.process_index() == 0
        self._agreed: Callable = (lambda decide: decide()) if self._alone else agreement.decided_by_first
        self._orbax = _orbax()
        self._finisher = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None

    def save(
        self, step: int, state: Any, metadata: Mapping[str, Any], *, best: bool = False, keep: bool = True
    ) -> None:
        """Start to write RUN/checkpoints/<step>, and return once the state is copied.

        With `best` also RUN/best/<step>, whose completion removes the previous best; without `keep` only that one.
        It holds the parameters of `state`, a mapping, and is complete before the checkpoint is.
        Waits for the previous save. A folder that is already complete stays as it is. RunError if the previous
        save failed or this one cannot start.
        """
        self.wait()
        asked = ((self.folder, keep), (self.best_folder, best))
        wanted = [parent / str(step) for parent, wanted in asked if wanted]
        complete = self._agreed(lambda: [manifest.exists(folder) for folder in wanted])
        folders = [folder for folder, done in zip(wanted, complete) if not done]
        if folders:
            whole = folders[0].parent == self.folder
            kept = state if whole else {name: state[name] for name in _of_best(state)}
            self._start(folders, step, kept, metadata)

    def check(self) -> None:
        """RunError if the background save has failed. Never waits."""
        if self._pending is not None and self._pending.done():
            self._pending.result()

    def wait(self) -> None:
        """Wait for the background save; RunError if it failed."""
        if self._pending is not None:
            self._pending.result()

    def close(self) -> None:
        """As `wait`, and release the threads."""
        try:
            self.wait()
        finally:
            self._finisher.shutdown()
            with contextlib.suppress(Exception):  # what `wait` has raised already, once more
                self._orbax.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def latest_intact(self) -> int | None:
        """The newest step whose every byte is as it was saved. Changes nothing on disk."""
        for step, path in reversed(_numbered(self.folder)):
            if manifest.fault(path) is None:
                return step
        return None

    def _start(self, folders: list[pathlib.Path], step: int, state: Any, metadata: Mapping[str, Any]) -> None:
        folder = folders[0]
        copy = jax.device_get(state) if self._alone else _snapshot(state)
        try:
            self._agreed(lambda: self._make(folder, metadata))
            with jax.transfer_guard("allow"):
                self._begin(folder / "state", copy)
        except (OSError, ValueError) as error:
            raise self._failure(folder, error) from error
        kinds = {name: _kind(leaf) for name, leaf in _leaves(copy).items()}
        self._pending = self._finisher.submit(self._finish, folders, step, kinds)

    def _begin(self, folder: pathlib.Path, state: Any) -> None:
        """Start to write the arrays. Not by Orbax with `alone`: it would leave all of them to process 0."""
        if not self._alone:
            self._orbax.save(folder, args=ocp.args.StandardSave(state))
            return
        folder.mkdir()
        np.savez(folder / _OWN_ARRAYS, **_leaves(state))

    def _make(self, folder: pathlib.Path, metadata: Mapping[str, Any]) -> None:
        try:
            _set_aside(folder, "partial")
            folder.mkdir(parents=True)
            (folder / "metadata.json").write_text(json.dumps(metadata, indent=1))
        except OSError as error:
            raise self._failure(folder, error) from error

    def _finish(self, folders: list[pathlib.Path], step: int, kinds: Mapping[str, str]) -> None:
        """In the background: wait for Orbax, complete the best and then the checkpoint, remove what is too old."""
        folder, *best = folders
        try:
            self._orbax.wait_until_finished()
            if self._leads:
                # The best first: no checkpoint may be restored that names a best which a kill has prevented.
                for each in best:
                    self._write_best(folder, each, step)
                manifest.write(folder, step, kinds)
        except Exception as error:
            for each in (each for each in best if self._leads and not manifest.exists(each)):
                shutil.rmtree(each, ignore_errors=True)
            raise self._failure(folder, error) from error
        if self._leads:
            for folder in folders:
                self._prune(folder.parent, step)

    def _write_best(self, folder: pathlib.Path, best: pathlib.Path, step: int) -> None:
        """Make `best` a complete folder of the parameters in `folder`, whose arrays are on disk already."""
        # From the disk, by process 0 alone: on the devices they have changed, and are spread over all processes.
        own = {"active_processes": {agreement.process_index()}, "primary_host": agreement.process_index()}
        options = {}
        if agreement.process_count() > 1:
            options["multiprocessing_options"] = ocp.options.MultiprocessingOptions(**own)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options), **options) as checkpointer:
            tree = checkpointer.metadata(folder / "state").item_metadata.tree
            params = _read_arrays(checkpointer, folder, {name: tree[name] for name in _of_best(tree)})
            _set_aside(best, "partial")
            best.mkdir(parents=True)
            shutil.copyfile(folder / "metadata.json", best / "metadata.json")
            checkpointer.save(best / "state", args=ocp.args.PyTreeSave(params))
        manifest.write(best, step, {name: _kind(leaf) for name, leaf in _leaves(params).items()})

    def _failure(self, folder: pathlib.Path, error: Exception) -> errors.RunError:
        """The error to raise for an incomplete folder, which is removed to free its disk space."""
        if self._leads:
            shutil.rmtree(folder, ignore_errors=True)
        done = steps(self.folder)
        newest = f"the newest complete one is of step {done[-1]}" if done else "there is none before it"
        return errors.RunError(f"the checkpoint {folder} could not be written: {orbax_noise.reason(error)}; {newest}")

    def _prune(self, parent: pathlib.Path, step: int) -> None:
        """Remove what is superfluous now that `step` is complete."""
        try:
            for leftover in [*parent.glob("*.deleted"), *parent.glob("*.partial")]:
                shutil.rmtree(leftover)
            for other in self._superfluous(parent, step):
                doomed = parent / f"{other}.deleted"  # a kill must not leave a folder with half its files
                os.replace(parent / str(other), doomed)
                shutil.rmtree(doomed)
        except OSError as error:
            logs.warn(f"an old checkpoint in {parent} could not be removed: {error.filename}: {error.strerror}")

    def _superfluous(self, parent: pathlib.Path, step: int) -> list[int]:
        if parent == self.best_folder:
            return [other for other, _ in _numbered(parent) if other != step]
        done = steps(parent)
        every = self._keep_every_steps
        return [other for other in done[: -self._keep] if not (every and other % every == 0)]

    def restore(self, abstract_state: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, state, metadata) of the newest intact checkpoint; None when there is none.

        The leaves of `abstract_state` are arrays or `jax.ShapeDtypeStruct`s with the shardings to restore to; the mesh
        may be another one. It may also be a function that makes it from the checkpoint's metadata. A corrupt or
        half-written checkpoint is named in a warning, renamed and passed over.
        RunError when one was complete but none is intact. InputError names the first parameter of another model.
        """
        step = self._agreed(self._choose)
        if step is None:
            return None
        folder = self.folder / str(step)
        metadata = opening.read_object(folder / "metadata.json", _MOST_METADATA_BYTES)
        wanted = abstract_state(metadata) if callable(abstract_state) else abstract_state
        return step, self._load(folder, wanted), metadata

    def _choose(self) -> int | None:
        """The step to restore. Renames what it passes over."""
        passed: list[tuple[pathlib.Path, str, str]] = []
        for step, folder in reversed(_numbered(self.folder)):
            found = manifest.fault(folder)
            if found is None:
                self._pass_over(passed, f"resuming from step {step}")
                return step
            # a kill cuts short only the newest; an older one without a manifest was damaged later
            cut_short = not passed and not manifest.exists(folder)
            passed.append((folder, found, "partial" if cut_short else "corrupt"))
        corrupt = [found for _, found, kind in passed if kind == "corrupt"]
        if corrupt:
            raise errors.RunError(
                f"no checkpoint in {self.folder} is intact: {'; '.join(corrupt)}; put a good copy there, "
                "or remove the folder to start from the first step"
            )
        self._pass_over(passed, "starting from the first step")
        return None

    def _pass_over(self, passed: list[tuple[pathlib.Path, str, str]], instead: str) -> None:
        for folder, found, kind in passed:
            kept = _set_aside(folder, kind)
            state = "half-written" if kind == "partial" else "corrupt"
            logs.warn(f"the checkpoint of step {folder.name} is {state}: {found}; kept as {kept.name}, {instead}")

    def _load(self, folder: pathlib.Path, abstract_state: Any) -> Any:
        saved = manifest.read(folder)["leaves"]
        _check_same_leaves(folder, saved, {name: _kind(leaf) for name, leaf in _leaves(abstract_state).items()})
        try:
            if self._alone:
                with np.load(opening.checked(folder / "state" / _OWN_ARRAYS)) as arrays:
                    return jax.tree.unflatten(jax.tree.structure(abstract_state), [arrays[name] for name in saved])
            target = jax.tree.map(_abstract, abstract_state)
            return self._orbax.restore(folder / "state", args=ocp.args.StandardRestore(target))
        except Exception as error:  # as in `read`
            raise errors.RunError(f"{folder} {_UNREADABLE}: {orbax_noise.reason(error)}") from error


def _orbax() -> ocp.AsyncCheckpointer:
    """The writer of all processes. Several wait for each other through the coordination service, not their devices."""
    if agreement.process_count() == 1:
        return ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
    options = ocp.options.MultiprocessingOptions(active_processes=set(range(agreement.process_count())))
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    return ocp.AsyncCheckpointer(handler, multiprocessing_options=options)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_same_leaves(folder: pathlib.Path, saved: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name in [*wanted, *saved]:
        if saved.get(name) != wanted.get(name):
            raise errors.InputError(
                f"{folder} is of another model: {printable.name(name)} is "
                f"{printable.name(saved.get(name, 'absent'))} there and "
                f"{wanted.get(name, 'absent')} here; give the configuration it was trained with"
            )


def _set_aside(folder: pathlib.Path, kind: str) -> pathlib.Path:
    """Rename `folder`, if it exists, to `<step>.<kind>`; a second corrupt one gets a number.

    Only the newest half-written one is kept: a run that is often killed would fill the disk.
    """
    if kind == "partial":
        for older in folder.parent.glob("*.partial"):
            shutil.rmtree(older)
    names = itertools.chain([kind], (f"{kind}.{number}" for number in itertools.count(1)))
    paths = (folder.with_name(f"{folder.name}.{name}") for name in names)
    kept = next(path for path in paths if not path.exists())
    if folder.exists():
        os.replace(folder, kept)
    return kept
