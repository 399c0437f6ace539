"""What makes programs faster on CPUs, beside the code itself: settings of the allocator and of XLA's devices.

All of it must be set before JAX starts, and none of it changes a number.
"""

import contextlib
import ctypes
import importlib.util
import mmap
import os
from importlib import metadata

import jax

from voc2vec_jax.runs import memory

_HUGE_PAGE = 1 << 21
_MALLOC_OPTIONS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}  # glibc's malloc.h


def keep_memory() -> None:
    """Where JAX will compute on CPUs, keep freed memory in the process, in huge pages; else do nothing.

    Call it before any thread starts: a thread gets its part of the allocator when it begins.
    """
    platforms = jax.config.jax_platforms or os.environ.get("JAX_PLATFORMS", "")
    plugins = metadata.entry_points(group="jax_plugins") or importlib.util.find_spec("libtpu")
    if platforms == "cpu" or not (platforms or plugins):
        _keep_freed()


def _keep_freed() -> None:
    """Without glibc, nothing happens.

    A step frees gigabytes of arrays and the next one asks for as many. Otherwise they go back to the system, which
    hands them out again page by page, each filled with zeros.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    set_option = getattr(library, "mallopt", None)
    if set_option is not None and all([set_option(*option) == 1 for option in _MALLOC_OPTIONS.values()]):
        _ask_for_huge_pages(library)


def _ask_for_huge_pages(library: ctypes.CDLL) -> None:
    """For the addresses that the heap will grow into: a block freed untouched stays as the top of the heap."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = memory.host_bytes() // 2
    block = library.malloc(size)
    if block:
        start = -(-block // _HUGE_PAGE) * _HUGE_PAGE
        library.madvise(start, block + size - start, mmap.MADV_HUGEPAGE)
        library.free(block)


def one_device_a_core() -> None:
    """Make every CPU core a device, for programs that spread over devices. A number that the user set stays.

    XLA runs the body of a loop on one core, so ten folds train faster on a core each. Accelerators are unaffected.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # JAX has started: its devices stay as they are
        jax.config.update("jax_num_cpu_devices", cores)
