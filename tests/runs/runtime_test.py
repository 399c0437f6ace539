"""What a program of ours does to JAX before it starts."""

import os
import subprocess
import sys

import jax
import pytest

from voc2vec_jax import errors
from voc2vec_jax.runs import memory, runtime, versions

COUNT = "import jax\nfrom voc2vec_jax.runs import cpu_tuning\ncpu_tuning.one_device_a_core()\nprint(len(jax.devices()))"


FAULTS = """
import resource
import numpy as np
from voc2vec_jax.runs import cpu_tuning

if {keeps}:
    cpu_tuning.keep_memory()
faults = []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(100_000_000, np.int8)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""


def devices(**more):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", **more}
    return int(subprocess.run([sys.executable, "-c", COUNT], env=environment, check=True, capture_output=True).stdout)


def test_every_core_is_a_device_unless_the_user_has_said_otherwise():
    assert devices() == len(os.sched_getaffinity(0))
    assert devices(XLA_FLAGS="--xla_force_host_platform_device_count=3") == 3


def test_free_memory_of_a_cpu_is_that_of_the_machine():
    free = memory.bytes_free(jax.devices()[0])
    assert 1 << 28 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def page_faults(keeps, platforms="cpu"):
    """Of the third array of 100 MB, the two before it being freed."""
    environment = {**os.environ, "JAX_PLATFORMS": platforms}
    code = FAULTS.format(keeps=keeps)
    return int(subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="the C library is not glibc")
def test_freed_memory_stays_on_cpus_only():
    assert page_faults(keeps=True) < 10 < page_faults(keeps=False)
    assert page_faults(keeps=True, platforms="cuda") > 10


@pytest.mark.parametrize(
    ("asked", "packages", "error", "said"),
    [
        ("cuda", (), AssertionError(), "asks for an NVIDIA GPU, and JAX is installed without support for it: pip inst"),
        ("tpu", (), RuntimeError("no libtpu"), "asks for a TPU, and JAX is installed without support for it: pip inst"),
        (
            "cuda",
            ("jax-cuda12-plugin",),
            RuntimeError("no GPU (set JAX_PLATFORMS='')"),
            "finds none (no GPU): see",
        ),
        ("tpu,cpu", ("libtpu",), RuntimeError("held\nby another"), "asks for a TPU, and JAX finds none (held): see"),
        (
            "abacus",
            (),
            RuntimeError("unknown"),
            "names no platform that is known here: give cpu, cuda or tpu",
        ),
    ],
)
def test_a_platform_that_is_not_there_is_a_sentence(asked, packages, error, said, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setattr(runtime, "_asked", lambda: asked)
    monkeypatch.setattr(versions, "installed", lambda name: "1" if name in packages else None)
    with pytest.raises(errors.InputError) as caught:
        runtime.platform()
    assert str(caught.value).startswith(f"JAX_PLATFORMS={asked} ") and said in str(caught.value)
    assert "\n" not in str(caught.value) and "(set JAX" not in str(caught.value)


def test_without_any_device_the_doctor_is_named(monkeypatch):
    def fail():
        raise RuntimeError("nothing here")

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setattr(runtime, "_asked", lambda: "")
    with pytest.raises(errors.InputError, match=r"JAX finds no device \(nothing here\): `voc2vec doctor` says"):
        runtime.start_jax()
