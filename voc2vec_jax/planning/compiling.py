"""Compile a program for a machine, and keep what XLA says of it."""

import dataclasses
import re
import time
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

# XLA:TPU refuses what does not fit: "Used 23.45G of 15.75G hbm.", or "the total memory required for HLO temporaries
# (96.00G) exceeds available HBM". GPU programs are compiled all the same.
_TOO_LARGE = re.compile(r"(?:Used |memory required for [^(]*\()([\d.]+)([KMG])(?: of [\d.]+[KMG]? hbm|\) exceeds)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program. Bytes are of one device."""

    seconds: float
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int  # arguments, results and temporaries together
    text: str | None  # the optimized program; None if the compiler refused it for its size


def compile(lowered: Any, cached: bool = False) -> Compiled:
    """Compile what `jax.jit(f).lower(...)` returned; `cached`: for a run that will use the program."""
    if not cached:
        leave_cache()
    began = time.monotonic()
    try:
        compiled = _with_or_without_triton(lowered)
    except jax.errors.JaxRuntimeError as error:
        found = _TOO_LARGE.search(str(error))
        if not found:
            raise
        needed = int(float(found[1]) * _UNITS[found[2]])
        return Compiled(time.monotonic() - began, 0, needed, needed, None)
    seconds = time.monotonic() - began
    planned = compiled.memory_analysis()
    # Donated arguments are counted as results too; `alias` is what they share.
    peak = planned.argument_size_in_bytes + planned.output_size_in_bytes + planned.temp_size_in_bytes
    peak -= planned.alias_size_in_bytes
    return Compiled(seconds, planned.argument_size_in_bytes, planned.temp_size_in_bytes, peak, compiled.as_text())


def leave_cache() -> None:
    """Compile without the cache on disk from here on.

    It would be written to, hide how long compiling takes, and offer programs that no compiler without a device reads.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX asks for the setting once, at its first compilation


def _with_or_without_triton(lowered: Any) -> Any:
    """The compiled program; for GPUs whose own products XLA cannot plan without trying them, with cuBLAS's products."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        # Of A100 and A6000: without a card no tile sizes are tried, and the ones that XLA assumes do not fit.
        if "find output tile sizes" not in str(error):
            raise
        return lowered.compile(compiler_options={"xla_gpu_enable_triton_gemm": False})
