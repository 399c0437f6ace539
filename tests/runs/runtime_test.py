"""What a program of ours does to JAX before it starts."""

import os
import subprocess
import sys

import jax
import pytest

from voc2vec_jax.runs import memory

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
