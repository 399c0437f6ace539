"""How JAX computes: precision, determinism and the compilation cache."""

import os
import pathlib

import jax
import ml_collections


def set_up_jax(config: ml_collections.ConfigDict) -> None:
    """Set precision, determinism and the persistent compilation cache, and start JAX; call it before computing."""
    if config.deterministic:
        compute_deterministically()
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    if not jax.config.jax_compilation_cache_dir:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "voc2vec_jax" / "xla"))
    # Processes exchange their devices when JAX starts, and each waits for all: start here, in every process, and not
    # later in process 0 alone while the others wait for it.
    jax.devices()


def platform() -> str:
    """JAX's name for the platform of this process's devices: "cpu", "gpu" or "tpu"."""
    return jax.local_devices()[0].platform


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
