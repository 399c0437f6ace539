"""How JAX computes: precision, determinism and the compilation cache."""

import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from voc2vec_jax import errors
from voc2vec_jax.runs import extras, versions


def set_up_jax(config: ml_collections.ConfigDict) -> None:
    """Set precision, determinism and the persistent compilation cache, and start JAX; call it before computing."""
    if config.deterministic:
        compute_deterministically()
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", cache_folder())
    # Processes exchange their devices when JAX starts, and each waits for all: start here, in every process, and not
    # later in process 0 alone while the others wait for it.
    start_jax()


def cache_folder() -> str:
    """Where compiled programs are kept: what JAX is told (JAX_COMPILATION_CACHE_DIR), else a folder of this package."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    return jax.config.jax_compilation_cache_dir or str(cache / "voc2vec_jax" / "xla")


def platform() -> str:
    """JAX's name for the platform of this process's devices: "cpu", "gpu" or "tpu"."""
    start_jax()
    return jax.local_devices()[0].platform


def start_jax() -> None:
    """Make JAX find its devices; InputError where it finds none of the platform that JAX_PLATFORMS asks for."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise errors.InputError(_not_there(_asked(), error)) from error


def _asked() -> str:
    """The platforms that JAX_PLATFORMS or the program asks for, separated by commas; empty for any."""
    return jax.config.jax_platforms or ""


# What JAX_PLATFORMS may ask for beside "cpu": the machine, the extra with JAX's support for it, and its packages
_MACHINES = {
    "cuda": ("an NVIDIA GPU", "cuda12", ("jax-cuda12-plugin", "jax-cuda13-plugin")),
    "gpu": ("a GPU", "cuda12", ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm60-plugin", "jax-rocm7-plugin")),
    "tpu": ("a TPU", "tpu", ("libtpu",)),
}


def _not_there(asked: str, error: Exception) -> str:
    """The sentence about platforms `asked` for, separated by commas, that JAX does not find."""
    said = (str(error).strip().splitlines() or [""])[0].split(" (set JAX_PLATFORMS")[0]
    if not asked:
        return f"JAX finds no device ({said}): `voc2vec doctor` says what is installed"
    unset = "unset it to compute on what is there"
    wanted = [name for name in asked.split(",") if name in _MACHINES]
    if not wanted:
        return f"JAX_PLATFORMS={asked} names no platform that is known here: give cpu, cuda or tpu, or {unset}"
    machine, extra, packages = _MACHINES[wanted[0]]
    if not any(map(versions.installed, packages)):
        return (
            f"JAX_PLATFORMS={asked} asks for {machine}, and JAX is installed without support for it: "
            f"{extras.command(extra)}, or {unset}"
        )
    because = f" ({said})" if said else ""
    return f"JAX_PLATFORMS={asked} asks for {machine}, and JAX finds none{because}: see `voc2vec doctor`, or {unset}"


def dtype_name(dtype: Any) -> str:
    """A type by its name: given as that, or as a type of NumPy, JAX or torch; what is none as it would be printed."""
    if isinstance(dtype, str) or str(dtype).startswith("torch."):
        return str(dtype).removeprefix("torch.")
    try:
        return np.dtype(dtype).name
    except TypeError:
        return repr(dtype)


def computed_in(dtype: str, platform: str) -> str:
    """The type of the computation: `dtype`, or what "auto" stands for on a platform.

    Accelerators multiply bfloat16 many times as fast as float32, and parameters, norms, softmax, losses and optimizer
    stay float32; CPUs gain nothing from it.
    """
    if dtype != "auto":
        return dtype
    return "float32" if platform == "cpu" else "bfloat16"


def compute_deterministically() -> None:
    """Make a GPU compute the same bits in every run; call it before JAX starts. A choice in XLA_FLAGS stays."""
    if "xla_gpu_deterministic_ops" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
