"""What makes programs faster on CPUs, beside the code itself: settings of the allocator and of XLA's devices.

All of it must be set before JAX starts, and none of it changes a number.
"""

import contextlib
import ctypes
import importlib.util
import os
from importlib import metadata

import jax

_MALLOC_OPTIONS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}  # glibc's malloc.h


def keep_memory() -> None:
    """Where JAX will compute on CPUs and the C library is glibc, keep freed memory in the process; else do nothing.

    Call it before any thread starts: a thread gets its part of the allocator when it begins.
    """
    # A step frees gigabytes of arrays and the next one asks for as many. Otherwise they go back to the system, which
    # hands them out again page by page, each filled with zeros: 314,056 page faults a step of base size, 0 with this.
    # Measured gain: without it a step takes 1.18 times as long (base, 2 clips of 5 s) or 1.47 times (tiny, 4 of 5 s).
    # Median ratio of single steps of two processes in turns, each compiled as by `tools/benchmark.py train
    # --model=base --rows=2 --seconds=5` (2026-11-28, two cores of a busy machine).
    platforms = jax.config.jax_platforms or os.environ.get("JAX_PLATFORMS", "")
    plugins = metadata.entry_points(group="jax_plugins") or importlib.util.find_spec("libtpu")
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is not None and (platforms == "cpu" or not (platforms or plugins)):
        for option in _MALLOC_OPTIONS.values():
            set_option(*option)


def one_device_a_core() -> None:
    """Make every CPU core a device, for programs that spread over devices. A number that the user set stays.

    XLA runs the body of a loop on one core, so ten folds train faster on a core each. Accelerators are unaffected.
    """
    # An epoch of four folds takes 1.7 times as long side by side on one device (0.31 to 0.18 s):
    # tools/benchmark.py finetune --model=tiny --folds=4 --clips=24 --passes=3, 2026-11-28, two idle cores
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # JAX has started: its devices stay as they are
        jax.config.update("jax_num_cpu_devices", cores)
