"""A run folder belongs to one configuration and one live process: `config.json`, `env.json` and the lock."""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import platform
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from types import MappingProxyType
from typing import Any

import jax

from voc2vec_jax import errors, opening, printable
from voc2vec_jax.runs import agreement, configuration, files, logs

_PACKAGES = ("voc2vec_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_MOST_BYTES = 8_000_000  # of config.json and env.json
HISTORY = "history"  # in config.json: the changes of a run's configuration
# What a run writes before its first step; a folder of nothing else holds no run.
_BEFORE = {"config.json", "env.json", ".lock", "fault.json", "leaks.json", "left_out.txt"}


class Claim:
    """A run folder that this process holds until `release` or until it dies."""

    def __init__(self, workdir: pathlib.Path, lock: int, changed: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.workdir, self.changed = workdir, changed
        self._lock: int | None = lock

    def release(self) -> None:
        """Unlock the folder for other processes."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def claim(
    workdir: str | pathlib.Path,
    config: Mapping[str, Any],
    may_differ: Sequence[str] = (),
    marks: Sequence[str] = ("checkpoints/*",),
    earlier: Mapping[str, Any] = MappingProxyType({}),
    resume_with: Sequence[str] | None = None,
) -> Claim:
    """Create or take over a run folder for `config`, and lock it against other processes. Call it in process 0 only.

    A folder that holds checkpoints (files that match the glob patterns `marks`) is refused if its configuration
    differs. The dotted fields or groups in `may_differ` may differ; their new values are printed and recorded. Fields
    that an earlier version did not write count as having had the values in `earlier`. Of the fields or groups in
    `resume_with` (None: the program has no such flag), those that differ are in the claim's `changed`, {field: [old,
    new]}; `config.json` then stays as it is until `record`.
    InputError when the folder is refused, in use or not writable.
    """
    folder = pathlib.Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
    except OSError as error:
        raise errors.InputError(_unwritable(folder, error)) from error
    try:
        changed = _write_config(folder, config, may_differ, marks, earlier, resume_with)
        _write_environment(folder)
    except OSError as error:
        os.close(lock)
        raise errors.InputError(_unwritable(folder, error)) from error
    except BaseException:
        os.close(lock)
        raise
    return Claim(folder, lock, changed)


@contextlib.contextmanager
def first_attempt(workdir: str | pathlib.Path) -> Iterator[None]:
    """An InputError in here takes the run folder away again, if it was not there before and no step was done.

    So a first attempt that fails, as by a list with a fault, leaves nothing that the corrected one must agree with.
    """
    folder = pathlib.Path(workdir)
    new = not folder.exists()
    try:
        yield
    except errors.InputError:
        if new and folder.is_dir() and agreement.process_index() == 0:
            found = list(folder.iterdir())
            if {path.name for path in found} <= _BEFORE:
                for path in found:
                    path.unlink(missing_ok=True)
                folder.rmdir()
        raise


def keep_earlier(
    workdir: str | pathlib.Path, config: Any, values: Mapping[str, Any], resume_with: Sequence[str] = ()
) -> None:
    """Set the fields of `config` that the run in a folder has decided already; a new folder decides nothing.

    `values` holds what an earlier version did, for fields that its configuration lacks. A dtype of "auto" becomes the
    folder's, so that a run goes on as it began on another kind of device too. Fields in `resume_with` stay.
    """
    path = pathlib.Path(workdir) / "config.json"
    if path.is_file():
        stored = _load(path)
        for name, value in values.items():
            if name not in stored and name not in resume_with:
                config[name] = value
        if config.dtype == "auto" and "dtype" in stored and "dtype" not in resume_with:
            config.dtype = stored["dtype"]


def claim_for_all(
    stack: contextlib.ExitStack, workdir: str | pathlib.Path, *arguments: Any, **options: Any
) -> dict[str, Any]:
    """`claim` by process 0 for all processes, until `stack` unwinds; returns what it found `changed`.

    Its InputError is raised in every process, and so is that of a process whose `workdir` is another folder.
    """
    changed = agreement.decided_by_first(
        lambda: dict(stack.enter_context(claim(workdir, *arguments, **options)).changed)
    )
    if agreement.process_count() > 1:
        _check_shared(pathlib.Path(workdir))
    return changed


def _check_shared(workdir: pathlib.Path) -> None:
    """InputError in every process if one does not see what process 0 writes to its folder: no checkpoint would end."""
    # A name that nobody has looked for: network file systems remember for a while that a file was not there.
    name = agreement.decided_by_first(lambda: f".shared-{secrets.token_hex(8)}")

    def look() -> None:
        if not (workdir / name).exists():
            raise errors.InputError(
                f"process {agreement.process_index()} on {socket.gethostname()} does not see in --workdir={workdir} "
                "what process 0 writes to its own: give all the same folder, on a file system that all of them share"
            )

    mark = workdir / name
    try:
        agreement.first_before_others(mark.touch if agreement.process_index() == 0 else look)
    finally:
        if agreement.process_index() == 0:
            for mark in workdir.glob(".shared-*"):  # those of killed runs too
                mark.unlink(missing_ok=True)


def stored(workdir: str | pathlib.Path) -> dict[str, Any]:
    """The configuration in a run folder, without its history; empty if there is none."""
    path = pathlib.Path(workdir) / "config.json"
    found = _load(path) if path.is_file() else {}
    return {name: value for name, value in found.items() if name != HISTORY}


def history(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The changes of a run's configuration, oldest first: {"step", "date", "changed": {field: [old, new]}}."""
    path = pathlib.Path(workdir) / "config.json"
    return _load(path).get(HISTORY, []) if path.is_file() else []


def record(workdir: str | pathlib.Path, config: Mapping[str, Any], step: int, changed: Mapping[str, Any]) -> None:
    """Write a changed configuration with its history, to which the present changes are added as those of `step`."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entries = [*history(workdir), {"step": step, "date": now, "changed": dict(changed)}]
    path = pathlib.Path(workdir) / "config.json"
    try:
        files.write_atomic(path, (json.dumps({**config, HISTORY: entries}, indent=2) + "\n").encode())
    except OSError as error:
        raise errors.RunError(f"{path} cannot be written: {error.strerror}") from error


def _unwritable(folder: pathlib.Path, error: OSError) -> str:
    return f"--workdir={folder} cannot be written: {error.strerror}; give a folder that can"


def _lock(folder: pathlib.Path) -> int:
    """A handle that holds the lock. It is a record lock, because a forked worker would inherit any other kind."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
        os.close(handle)
        raise errors.InputError(
            f"--workdir={folder} is in use by {holder}: wait for it, stop it, or give another folder"
        ) from None
    except OSError as error:
        logs.warn(f"{folder} cannot be locked ({error.strerror}): see that no other process trains there")
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return handle


def _write_config(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    may_differ: Sequence[str],
    marks: Sequence[str],
    earlier: Mapping[str, Any],
    resume_with: Sequence[str] | None,
) -> dict[str, Any]:
    """What changes by `resume_with`; if nothing does, `config.json` is written."""
    path = folder / "config.json"
    new = json.loads(json.dumps(config))
    begun = any(found for mark in marks for found in folder.glob(mark))
    if resume_with and not (begun and path.exists()):
        raise errors.InputError(f"--workdir={folder} holds no run to resume: leave out --resume_with")
    if path.exists():
        stored = _load(path)
        entries = {HISTORY: stored.pop(HISTORY)} if HISTORY in stored else {}
        differing = list(_differences({**earlier, **stored}, new))
        refused = [one for one in differing if not _covered(one.name, (*may_differ, *(resume_with or ())))]
        if refused and begun:
            how = "" if resume_with is None else "name what shall change in --resume_with, "
            raise errors.InputError(
                f"--workdir={folder} holds a run with another configuration: {'; '.join(map(str, refused))}; "
                f"give the old values to resume it, {how}or another --workdir"
            )
        changed = {one.name: [one.before, one.after] for one in differing if _covered(one.name, resume_with or ())}
        if changed:
            return changed
        if stored == new:
            return {}
        if differing:
            logs.say(f"{folder} goes on with {'; '.join(map(str, differing))}")
        new |= entries if begun else {}
    files.write_atomic(path, (json.dumps(new, indent=2) + "\n").encode())
    return {}


def _load(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = opening.read_json(path, _MOST_BYTES)
        if not isinstance(found, dict) or not isinstance(found.get(HISTORY, []), list):
            raise ValueError("it is no configuration")
    except errors.InputError:
        raise
    except ValueError as error:
        reason = printable.name(str(error), 100)
        raise errors.InputError(f"{path} is damaged ({reason}): restore it or give another --workdir") from error
    return found


def _covered(name: str, may_differ: Sequence[str]) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in may_differ)


@dataclasses.dataclass(frozen=True)
class _Difference:
    """A dotted field that differs, and its values; None where it is absent."""

    name: str
    before: Any
    after: Any
    said: str

    def __str__(self) -> str:
        return self.said


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[_Difference]:
    # Runs of earlier versions kept ~ for the home folder
    before, after = ({name: configuration.at_home(value) for name, value in _leaves(tree)} for tree in (old, new))
    for name in dict.fromkeys([*before, *after]):
        # As text: 1 and 1.0 and true are three values
        was, now = (json.dumps(values[name]) if name in values else "absent" for values in (before, after))
        if was != now:
            yield _Difference(name, before.get(name), after.get(name), f"{name} was {was}, now {now}")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def environment() -> dict[str, Any]:
    """Versions, devices, host, git revision and command line of this process."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "git_revision": _git_revision(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": {"kind": devices[0].device_kind, "backend": devices[0].platform, "count": len(devices)},
        "processes": jax.process_count(),
        "command": shlex.join([sys.executable, *sys.orig_argv[1:]]),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """The commit of this package's source tree, with `-dirty` when it has changes; None outside a checkout."""
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _write_environment(folder: pathlib.Path) -> None:
    """Write `env.json`: this start and, under `earlier`, previous starts in other environments."""
    path = folder / "env.json"
    now = {**environment(), "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    earlier: list[Any] = []
    if path.exists():
        last = _load(path)
        earlier = last.pop("earlier", [])
        if _without_time(last) != _without_time(now):
            earlier.append(last)
    text = json.dumps({**now, "earlier": earlier}, indent=2)
    files.write_atomic(path, (text + "\n").encode())


def _without_time(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in environment.items() if name != "started"}
