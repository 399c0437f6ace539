"""Machines by name: the devices of a TPU or GPU system, as XLA describes them without the system.

v5e:2x4          a slice of 8 chips            h100        one GPU
v5p:4x4x4        64 chips                      h100:8      a host of 8
v5e:4x4*2        two slices of 16              h100:2x8    two hosts of 8
"""

import dataclasses
import difflib
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from voc2vec_jax import errors
from voc2vec_jax.planning import chips
from voc2vec_jax.runs import extras, memory

EXAMPLES = "v5e:1x1, v5e:4x4, v5p:4x4x4, h100, h100:8, h100:2x8"
EXTRAS = {"tpu": "plan-tpu", "cuda": "plan-cuda"}
_PLUGINS = {"tpu": ("libtpu",), "cuda": ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")}
# Read by libtpu and the CUDA plugin when they load: no question to a cloud's metadata server, no lock of a device that
# is not used, no demand for a driver, and no log but faults.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """A system of devices to compile for. `devices` can be compiled for and hold no memory."""

    name: str
    chip: chips.Chip
    devices: tuple[Any, ...]
    near: dict[int, int]  # device id: the slice (TPU) or host (GPU) within which its links are fast

    @property
    def platform(self) -> str:
        """JAX's name of the platform: "tpu" or "cuda"."""
        return self.chip.platform

    @property
    def free_bytes(self) -> int:
        """Memory of a device that a program gets."""
        return self.chip.usable_bytes // self.chip.devices

    @property
    def title(self) -> str:
        """The devices in words."""
        groups = len(set(self.near.values()))
        parts = {"tpu": "slices", "cuda": "hosts"}[self.platform]
        spread = f" in {groups} {parts}" if groups > 1 else ""
        return f"{len(self.devices)} x {self.chip.title}{spread}, {self.free_bytes / 1e9:.1f} GB each"


def title(machine: Machine | None) -> str:
    """A machine in words; None is the devices of all processes."""
    if machine is not None:
        return machine.title
    return f"{jax.device_count()} x {jax.local_devices()[0].device_kind} in {jax.process_count()} process(es)"


def free_bytes(machine: Machine | None) -> int:
    """Memory of a device that a program gets; of None, what is free on a device of this process."""
    if machine is not None:
        return machine.free_bytes
    device = jax.local_devices()[0]
    # CPU devices share the machine's memory, an accelerator has its own.
    return memory.bytes_free(device) // (1 if device.platform != "cpu" else len(jax.local_devices()))


def parse(name: str) -> tuple[str, tuple[int, ...], int]:
    """(chip, sizes of the grid, slices) of a machine's name; InputError for a chip or a form that is not known."""
    kind, _, rest = name.partition(":")
    if kind not in chips.CHIPS:
        near = difflib.get_close_matches(kind, chips.CHIPS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"such as {EXAMPLES}"
        raise errors.InputError(f"--device={name} is none of {', '.join(chips.CHIPS)}; {hint}")
    tpu = chips.CHIPS[kind].platform == "tpu"
    axes = (2 if kind in ("v2", "v3", "v5e", "v6e") else 3) if tpu else 2
    rest = rest or ("x".join("1" * axes) if tpu else "1")
    form = re.fullmatch(r"(\d+(?:x\d+)*)(?:\*(\d+))?", rest)
    sizes = tuple(map(int, form[1].split("x"))) if form else ()
    slices = int(form[2] or 1) if form else 0
    fits = len(sizes) == axes if tpu else len(sizes) <= axes and slices == 1
    if not (fits and min(sizes) and slices):
        shape = "x".join("ABC"[:axes]) + " chips" if tpu else "GPUS or HOSTSxGPUS"
        raise errors.InputError(f"--device={name} is not of the form {kind}:{shape}, such as {EXAMPLES}")
    return kind, sizes, slices


def machine(name: str) -> Machine:
    """The machine of a name; InputError for a name that XLA does not know, or where a plugin is not installed."""
    kind, sizes, slices = parse(name)
    chip = chips.CHIPS[kind]
    need_plugin(name, chip.platform)
    stay_on_cpu()
    try:
        found = _tpus(kind, sizes, slices) if chip.platform == "tpu" else _gpus(kind, sizes)
    except jax.errors.JaxRuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise errors.InputError(
            f"--device={name} cannot be compiled for: choose another, {EXAMPLES} ({first})"
        ) from None
    of = (lambda d: d.slice_index if slices > 1 else 0) if chip.platform == "tpu" else (lambda d: d.process_index)
    return Machine(name, chip, found, {device.id: of(device) for device in found})


def need_plugin(name: str, platform: str) -> None:
    """InputError with the extra that is missing, if the compiler of a platform is not installed."""
    if not any(_installed(plugin) for plugin in _PLUGINS[platform]):
        raise errors.InputError(f"--device={name} needs XLA's compiler for it: {extras.command(EXTRAS[platform])}")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is absent
        return False


def stay_on_cpu() -> None:
    """Compute nothing but on CPUs in this process, and set what the plugins read. Call it before JAX starts."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")


def _tpus(kind: str, sizes: tuple[int, ...], slices: int) -> tuple[Any, ...]:
    # A host holds 2 x 2 chips; parts of a host are asked for by its bounds.
    bounds = [min(2, size) for size in sizes[:2]] + [1]
    options = {"chips_per_host_bounds": bounds} if math.prod(bounds) < 4 else {}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, as JAX has on v4
    if slices > 1:
        options["num_slices"] = slices
    name = f"{kind}:{'x'.join(map(str, sizes))}"
    return tuple(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)


def _gpus(kind: str, sizes: tuple[int, ...]) -> tuple[Any, ...]:
    hosts, each = (1, *sizes)[-2:]
    return tuple(
        topologies.get_topology_desc(
            kind, platform="cuda", target_config=chips.gpu_target(chips.CHIPS[kind]), topology=f"1x{hosts}x{each}"
        ).devices
    )
