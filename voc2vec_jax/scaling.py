"""A model on paper of pre-training on 1 to 1,024 devices: compute, collectives, memory and input, per step.

Every device computes one loss group (8 clips of 10 s) an update, so that the batch grows with the devices; the
recipe's own batch of 64 groups ends at 64 of them. What is assumed of a device is in `DEVICES`; what the collectives
carry is counted by `carried_bytes`, which the tests hold against compiled programs.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax

from voc2vec_jax import audio, errors
from voc2vec_jax.models import flops
from voc2vec_jax.pretraining import recipe as pretraining_recipe

COUNTS = (1, 8, 64, 256, 1024)
MODELS = ("base", "large")
HEADINGS = ("model", "devices", "compute ms", "collectives ms", "step ms, none to all hidden", "efficiency")
HEADINGS += ("audio-s/s", "GB sent", "GB of state", "MB/s read by a host")
INT16_BYTES = 2
FLOAT_BYTES = 4
MOMENTS = 2  # of Adam, as large as the parameters


@dataclasses.dataclass(frozen=True)
class Device:
    """What is assumed of an accelerator: the maker's rates, and the share of them that is reached."""

    name: str
    operations: float  # per second, bfloat16 products, dense
    share: float  # of it that a step reaches
    memory_bytes: float
    neighbours: int  # devices behind the fast links: a host's GPUs, or a whole pod
    near_bytes: float  # per second, one direction, what a device sends to its neighbours
    far_bytes: float  # per second that a device sends to other hosts
    latency: float  # seconds of one hop
    link_share: float = 0.7  # of the links' rate that collectives reach
    devices_per_host: int = 8


DEVICES = {
    "h200": Device("NVIDIA H200, 8 a host", 989e12, 0.20, 141e9, 8, 450e9, 50e9, 10e-6),
    "v5p": Device("TPU v5p, 4 a host", 459e12, 0.30, 95e9, 1024, 300e9, 300e9, 2e-6, devices_per_host=4),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One update on so many devices, each number of one device and in SI units."""

    devices: int
    compute_seconds: float
    collective_seconds: float
    sent_bytes: float
    state_bytes: float
    read_bytes_per_second: float  # of a host
    audio_seconds: float  # of all devices

    @property
    def exposed_seconds(self) -> float:
        """The step when no collective overlaps with arithmetic."""
        return self.compute_seconds + self.collective_seconds

    @property
    def hidden_seconds(self) -> float:
        """The step when all that can overlap does."""
        return max(self.compute_seconds, self.collective_seconds)


def model_of(name: str) -> tuple[Any, Any]:
    """(family, model) of wav2vec 2.0 base or large."""
    config = pretraining_recipe.pretraining("wav2vec2")
    if name == "large":
        e = config.model.encoder
        e.width, e.depth, e.heads, e.inner_width = 1024, 24, 16, 4096
        e.conv_norm, e.conv_bias, e.norm_first = "layer", True, True
        config.model.codebook_width = config.model.target_width = 768
    return pretraining_recipe.build_model(config)


def parameter_count(family: Any, model: Any) -> int:
    """Numbers that are trained."""
    shapes = jax.eval_shape(lambda: family.init_params(model, jax.random.key(0)))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


def carried_bytes(parameters: int, cut: int, devices: int, fsdp: int) -> dict[str, float]:
    """Results of the collectives of an update on one device, in bytes; `cut` of the parameters are cut by fsdp.

    Replicas sum gradients (all-reduce). With fsdp a device gathers what is cut for the forward and for the backward
    pass (all-gather), and keeps its part of the gradient's sum (reduce-scatter, then all-reduce over the replicas).
    """
    replicas, whole = devices // fsdp, FLOAT_BYTES * (parameters - cut)
    if fsdp == 1:
        return {
            "all-reduce": float(FLOAT_BYTES * parameters) if devices > 1 else 0.0,
            "all-gather": 0.0,
            "reduce-scatter": 0.0,
        }
    part = FLOAT_BYTES * cut / fsdp
    return {
        "all-reduce": float(whole + (part if replicas > 1 else 0.0)),
        "all-gather": 2.0 * FLOAT_BYTES * cut,
        "reduce-scatter": part,
    }


def step(parameters: int, operations: float, device: Device, devices: int, fsdp: int = 1) -> Step:
    """One update: `operations` of a device's loss group, gradients of `parameters` over rings of all devices.

    With fsdp parameters are cut over neighbours, as the mesh lays them, and the rings join replicas: InputError for
    parts that would lie on several hosts.
    """
    if fsdp > device.neighbours:
        raise errors.InputError(f"--fsdp={fsdp} is more than the {device.neighbours} devices with links of their own")
    recipe = pretraining_recipe.pretraining()
    heard = recipe.group_rows * recipe.crop_samples
    carried = carried_bytes(parameters, parameters if fsdp > 1 else 0, devices, fsdp)
    near, far = max(1, min(devices, device.neighbours) // fsdp), -(-devices // device.neighbours)
    ring = lambda n: (n - 1) / n  # noqa: E731
    inside = carried["all-gather"] * ring(fsdp) + carried["reduce-scatter"] * fsdp * ring(fsdp)
    summed = carried["all-reduce"]
    sent_near = inside + 2 * ring(near) * summed
    # between hosts each device sums the part that it got of the sum of its host's replicas
    sent_far = 2 * ring(far) * summed / near
    hops = 2 * (near - 1) + 2 * (far - 1) + 3 * (fsdp - 1)
    seconds = (sent_near / device.near_bytes + sent_far / device.far_bytes) / device.link_share + hops * device.latency
    compute = operations / (device.operations * device.share)
    hosted = min(devices, device.devices_per_host)
    return Step(
        devices=devices,
        compute_seconds=compute,
        collective_seconds=seconds if devices > 1 else 0.0,
        sent_bytes=sent_near + sent_far,
        state_bytes=(2 + MOMENTS) * FLOAT_BYTES * parameters / fsdp,
        read_bytes_per_second=hosted * heard * INT16_BYTES / max(compute, seconds),
        audio_seconds=devices * heard / audio.RATE_HZ,
    )


def table(device: Device, fsdp: int = 1) -> Iterator[str]:
    """Lines of a Markdown table: base and large on each number of devices."""
    yield f"| {' | '.join(HEADINGS)} |"
    yield "|---" * len(HEADINGS) + "|"
    recipe = pretraining_recipe.pretraining()
    for name in MODELS:
        family, model = model_of(name)
        parameters = parameter_count(family, model)
        operations = recipe.group_rows * sum(flops.training(model, recipe.crop_samples).values())
        for devices in COUNTS:
            found = step(parameters, operations, device, devices, min(fsdp, devices))
            yield row(f"{name} ({parameters / 1e6:.0f} M)", found)


def row(name: str, found: Step) -> str:
    """One line of the table."""
    times = [found.compute_seconds, found.collective_seconds, found.exposed_seconds, found.hidden_seconds]
    compute, collectives, exposed, hidden = (f"{1e3 * seconds:.1f}" for seconds in times)
    low, high = (found.compute_seconds / seconds for seconds in times[2:])
    rate = found.audio_seconds / found.exposed_seconds
    return (
        f"| {name} | {found.devices:,} | {compute} | {collectives} | {exposed} to {hidden} | {low:.0%} to {high:.0%} | "
        f"{rate:,.0f} | {found.sent_bytes / 1e9:.2f} | {found.state_bytes / 1e9:.2f} | "
        f"{found.read_bytes_per_second / 1e6:.1f} |"
    )
