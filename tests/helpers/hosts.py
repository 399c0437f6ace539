"""Processes on loopback that are the hosts of one run, each with some simulated devices."""

import os
import pathlib
import socket
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).parents[2]
# Optimised code is not what these tests are about; a skew between starved devices is no fault either.
XLA = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
XLA += " --xla_cpu_collective_call_terminate_timeout_seconds=600"


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(cache, hosts, devices, module, *arguments, places=None):
    """`python -m module` in each of `hosts` processes of so many devices; one host runs without `jax.distributed`.

    `places` are the working folders of the processes, by default this checkout.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment["XLA_FLAGS"] = f"{XLA} --xla_force_host_platform_device_count={devices}"
    shared = ["--distributed=explicit", f"--coordinator=localhost:{free_port()}", f"--processes={hosts}"]
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments, *([*shared, f"--process={i}"] if hosts > 1 else [])],
            cwd=places[i] if places else ROOT,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(hosts)
    ]


def finish(processes, timeout=180):
    """Statuses, and what each said on stderr."""
    said = [None] * len(processes)

    def read(i):
        said[i] = processes[i].communicate()[1]

    readers = [threading.Thread(target=read, args=(i,)) for i in range(len(processes))]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(timeout)
    hung = [process.poll() is None for process in processes]
    for process in processes:
        process.kill()
    for reader in readers:
        reader.join()
    assert not any(hung), said
    return [process.returncode for process in processes], said


def run(*given):
    return finish(start(*given))
