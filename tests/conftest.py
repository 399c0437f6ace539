"""Strict settings for every test: eight CPU devices, rank promotion raises, shapes are checked at run time."""

import os

# The compiler's optimisations take most of the time of tests this small, and none of their meaning; of the tests that
# start programs of their own some run them as users do (train_hubert_test).
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])

import jaxtyping

jaxtyping.install_import_hook("voc2vec_jax", "beartype.beartype")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
