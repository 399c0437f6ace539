"""What XLA says when it compiles, and what it says when it refuses."""

import types

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from voc2vec_jax.planning import compiling, report
from voc2vec_jax.runs import cli


class Lowered:
    """A lowered program whose compiler says `message` unless it gets an option."""

    def __init__(self, message, option=None):
        self.message, self.option, self.tries = message, option, []

    def compile(self, compiler_options=None):
        self.tries.append(compiler_options)
        if self.option is None or self.option not in (compiler_options or {}):
            raise jax.errors.JaxRuntimeError(self.message)
        sizes = {"argument": 10, "output": 7, "temp": 5, "alias": 6}
        analysis = types.SimpleNamespace(**{f"{name}_size_in_bytes": size for name, size in sizes.items()})
        return types.SimpleNamespace(memory_analysis=lambda: analysis, as_text=lambda: "HloModule m")


@pytest.mark.parametrize(
    "message, needed",
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU ran out. Used 23.50G of 15.75G hbm. Exceeded hbm capacity by 7.75G.",
            23.5 * 2**30,
        ),
        ("the total memory required for HLO temporaries (96.00G) exceeds available HBM (15.75G).", 96 * 2**30),
        ("Used 512.00M of 256.00M hbm.", 512 * 2**20),
    ],
)
def test_what_is_too_large_says_its_bytes(message, needed):
    found = compiling.compile(Lowered(message))
    assert found.peak_bytes == found.temporary_bytes == needed and found.text is None


def test_any_other_fault_is_raised():
    with pytest.raises(jax.errors.JaxRuntimeError, match="no such thing"):
        compiling.compile(Lowered("INTERNAL: no such thing"))


def test_products_that_cannot_be_planned_are_cublas_s():
    lowered = Lowered("INTERNAL: Couldn't find output tile sizes that satisfy hlo: %dot", "xla_gpu_enable_triton_gemm")
    found = compiling.compile(lowered)
    assert lowered.tries == [None, {"xla_gpu_enable_triton_gemm": False}]
    assert (found.argument_bytes, found.temporary_bytes, found.peak_bytes) == (10, 5, 16)  # shared results count once
    assert found.text == "HloModule m"


@pytest.fixture
def cache(tmp_path):
    """A folder in which JAX keeps every compiled program."""
    names = ("jax_enable_compilation_cache", "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (True, str(tmp_path), 0.0)):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_a_plan_leaves_the_cache_on_disk_alone_even_after_a_run_has_used_it(cache):
    jax.jit(lambda x: x + 1)(jnp.zeros(7))
    kept = sorted(cache.iterdir())
    assert kept
    compiling.compile(jax.jit(lambda x: jnp.sin(x) + 2).lower(jax.ShapeDtypeStruct((9,), "f4")))
    assert sorted(cache.iterdir()) == kept


def test_what_a_plan_compiles_on_its_way_is_not_kept_either(cache):
    """No compiler without a device reads what is kept: to size the folds of a dry run, a step of them is compiled."""
    arguments = cli.parse(["--dry_run"], flags=report.FLAGS, program="plan")
    assert report.requested(arguments) is not None
    jax.jit(lambda x: jnp.cos(x) + 3).lower(jax.ShapeDtypeStruct((11,), "f4")).compile()
    assert list(cache.iterdir()) == []
