"""How JAX computes in a run of ours."""

import os
import pathlib

import jax
import ml_collections

from voc2vec_jax import logs


def set_up_jax(config: ml_collections.ConfigDict) -> None:
    """Precision, determinism and the persistent compilation cache; before anything is computed."""
    if config.deterministic and "xla_gpu_deterministic_ops" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    if not jax.config.jax_compilation_cache_dir:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "voc2vec_jax" / "xla"))
    logs.set_process(jax.process_index())
