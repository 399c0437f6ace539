"""What a program of ours does to JAX before it starts."""

import os
import subprocess
import sys

import jax

from voc2vec_jax import memory

COUNT = "import jax\nfrom voc2vec_jax import runtime\nruntime.one_device_a_core()\nprint(len(jax.devices()))"


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
