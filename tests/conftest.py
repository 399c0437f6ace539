"""Strict settings for every test: eight CPU devices, rank promotion raises, shapes are checked at run time."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=600"
)

import jaxtyping

jaxtyping.install_import_hook("voc2vec_jax", "beartype.beartype")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
