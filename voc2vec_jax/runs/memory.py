"""How much memory there is: of a device and of the machine."""

import os
import pathlib

import jax

from voc2vec_jax import opening

_OF_PROCESS = pathlib.Path("/proc/self/statm")
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def bytes_limit(device: jax.Device) -> int:
    """The bytes of an accelerator that this process may use. Of a CPU device, all that the machine has."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return stats["bytes_limit"] if stats and "bytes_limit" in stats else _host_bytes()


def bytes_free(device: jax.Device) -> int:
    """Free bytes of an accelerator. Of a CPU device, all that the machine has; its devices share it."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return bytes_limit(device) - (stats or {}).get("bytes_in_use", 0)


def bytes_used() -> int | None:
    """The most that an accelerator of this process has had in use; None when it does not say.

    With CPU devices, the memory that this process holds at present.
    """
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
        return max((peak for peak in peaks if peak is not None), default=None)
    if not _OF_PROCESS.is_file():
        return None
    # size resident shared ..., in pages
    return int(opening.read_text(_OF_PROCESS).split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _host_bytes() -> int:
    """The machine's memory, or the container's limit where that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(pathlib.Path, _CGROUP_LIMITS):
        text = opening.read_text(path).strip() if path.is_file() else "max"
        limits += [int(text)] if text.isdecimal() else []
    return min(limits)
