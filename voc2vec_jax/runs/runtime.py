"""How JAX computes in a run of ours."""

import contextlib
import importlib.util
import os
import pathlib
from importlib import metadata

import jax
import ml_collections

from voc2vec_jax.runs import logs, memory


def set_up_jax(config: ml_collections.ConfigDict) -> None:
    """Precision, determinism and the persistent compilation cache; before anything is computed."""
    if config.deterministic:
        compute_deterministically()
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    if not jax.config.jax_compilation_cache_dir:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "voc2vec_jax" / "xla"))
    logs.set_process(jax.process_index())


def compute_deterministically() -> None:
    """Makes a GPU compute the same bits in every run; before JAX starts. What XLA_FLAGS says of it stays."""
    if "xla_gpu_deterministic_ops" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()


def share_device_memory() -> None:
    """Leaves a GPU's memory to other processes too, as it is needed; before JAX starts. What the user has set stays."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def keep_memory() -> None:
    """Where JAX will compute on CPUs, freed memory stays with the process (`memory.keep_freed`); before JAX starts.

    Its threads get their share of the allocator when they begin, so that it is too late afterwards.
    """
    platforms = jax.config.jax_platforms or os.environ.get("JAX_PLATFORMS", "")
    plugins = metadata.entry_points(group="jax_plugins") or importlib.util.find_spec("libtpu")
    if platforms == "cpu" or not (platforms or plugins):
        memory.keep_freed()


def one_device_a_core() -> None:
    """Makes every CPU core a device of its own, for programs that are spread over devices; before JAX starts.

    XLA runs the body of a loop on one core, so that folds are best computed on a core each. Accelerators are used as
    ever, and a number of devices that the user has set stays.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # JAX refuses when it has started already: then the devices are what they are
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores)
