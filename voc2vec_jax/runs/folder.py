"""A run folder belongs to one configuration and one live process: `config.json`, `env.json` and the lock."""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
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

from voc2vec_jax import errors
from voc2vec_jax.runs import agreement, files, logs

_PACKAGES = ("voc2vec_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class Claim:
    """A run folder that this process holds until `release` or until it dies."""

    def __init__(self, workdir: pathlib.Path, lock: int) -> None:
        self.workdir = workdir
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
) -> Claim:
    """Create or take over a run folder for `config`, and lock it against other processes. Call it in process 0 only.

    A folder that holds checkpoints (files that match the glob patterns `marks`) is refused if its configuration
    differs. The dotted fields or groups in `may_differ` may differ; their new values are printed and recorded. Fields
    that an earlier version did not write count as having had the values in `earlier`.
    InputError when the folder is refused, in use or not writable.
    """
    folder = pathlib.Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
    except OSError as error:
        raise errors.InputError(_unwritable(folder, error)) from error
    try:
        _write_config(folder, config, may_differ, marks, earlier)
        _write_environment(folder)
    except OSError as error:
        os.close(lock)
        raise errors.InputError(_unwritable(folder, error)) from error
    except BaseException:
        os.close(lock)
        raise
    return Claim(folder, lock)


def keep_earlier(workdir: str | pathlib.Path, config: Any, values: Mapping[str, Any]) -> None:
    """Set the fields of `config` that the run in a folder has decided already; a new folder decides nothing.

    `values` holds what an earlier version did, for fields that its configuration lacks. A dtype of "auto" becomes the
    folder's, so that a run goes on as it began on another kind of device too.
    """
    path = pathlib.Path(workdir) / "config.json"
    if path.is_file():
        stored = _load(path)
        for name, value in values.items():
            if name not in stored:
                config[name] = value
        if config.dtype == "auto" and "dtype" in stored:
            config.dtype = stored["dtype"]


def claim_for_all(stack: contextlib.ExitStack, *arguments: Any, **options: Any) -> None:
    """`claim` by process 0 for all processes, until `stack` unwinds. Its InputError is raised in every process."""

    def enter() -> None:
        stack.enter_context(claim(*arguments, **options))

    agreement.decided_by_first(enter)


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
) -> None:
    path = folder / "config.json"
    new = json.loads(json.dumps(config))
    if path.exists():
        stored = _load(path)
        differing = list(_differences({**earlier, **stored}, new))
        refused = [text for name, text in differing if not _covered(name, may_differ)]
        if refused and any(found for mark in marks for found in folder.glob(mark)):
            raise errors.InputError(
                f"--workdir={folder} holds a run with another configuration: {'; '.join(refused)}; "
                "give the old values to resume it, or another --workdir"
            )
        if stored == new:
            return
        if differing:
            logs.say(f"{folder} goes on with {'; '.join(text for _, text in differing)}")
    files.write_atomic(path, (json.dumps(new, indent=2) + "\n").encode())


def _load(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise errors.InputError(f"{path} is damaged ({error}): restore it or give another --workdir") from error


def _covered(name: str, may_differ: Sequence[str]) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in may_differ)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Pairs of a differing dotted field and `field was 1, now 2`."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    for name in dict.fromkeys([*before, *after]):
        if name not in before:
            yield name, f"{name} was absent, now {json.dumps(after[name])}"
        elif name not in after:
            yield name, f"{name} was {json.dumps(before[name])}, now absent"
        elif json.dumps(before[name]) != json.dumps(after[name]):  # 1 and 1.0 and true are three values
            yield name, f"{name} was {json.dumps(before[name])}, now {json.dumps(after[name])}"


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
