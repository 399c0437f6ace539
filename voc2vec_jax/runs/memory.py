"""How much memory a device has left, and what becomes of memory that is freed."""

import ctypes
import mmap
import os
import pathlib

import jax

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


_HUGE_PAGE = 1 << 21
_GLIBC_OPTIONS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}  # of its malloc.h


def keep_freed() -> bool:
    """Makes this process keep the memory that it frees, in huge pages, where the C library is glibc; whether it does.

    A step on CPUs frees its arrays, gigabytes of them, and the next one asks for as many. Without this they go back to
    the system, which hands them out again page by page, each filled with zeros.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    set_option = getattr(library, "mallopt", None)
    if set_option is None or not all([set_option(*option) == 1 for option in _GLIBC_OPTIONS.values()]):
        return False
    _ask_for_huge_pages(library)
    return True


def _ask_for_huge_pages(library: ctypes.CDLL) -> None:
    """For the addresses that the heap will grow into: a block that is freed untouched stays as its top."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = _host_bytes() // 2
    block = library.malloc(size)
    if block:
        start = -(-block // _HUGE_PAGE) * _HUGE_PAGE
        library.madvise(start, block + size - start, mmap.MADV_HUGEPAGE)
        library.free(block)


def bytes_free(device: jax.Device) -> int:
    """Free bytes of an accelerator; of a CPU device all that the machine has, which its devices share."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return _host_bytes()


def _host_bytes() -> int:
    """The machine's memory, or the container's where that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(pathlib.Path, _CGROUP_LIMITS):
        text = path.read_text().strip() if path.is_file() else "max"
        limits += [int(text)] if text.isdecimal() else []
    return min(limits)


def peak_bytes() -> int:
    """The most memory that this process has held so far; 0 where the system does not say."""
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
