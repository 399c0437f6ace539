"""The report on a program that was compiled for a machine: lines for people, one JSON object for programs."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from voc2vec_jax import errors, printable
from voc2vec_jax.planning import collectives, compiling, counts, devices, roofline
from voc2vec_jax.runs import cli, files, runtime, sharding

SECONDS_OF_A_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class Plan:
    """A program for a machine and what is known of it. Bytes are of one device."""

    machine: devices.Machine | None  # None: the devices of this process
    title: str  # the devices and how they are used
    shapes: tuple[str, ...]  # the arrays of a batch
    parameters: int
    parts: Mapping[str, int]  # bytes of the arguments, by what they are
    copied_bytes: int  # held once more for a moment, when a checkpoint is saved
    free_bytes: int
    compiled: compiling.Compiled
    work: roofline.Work
    unit: str = "step"  # what one run of the program is
    units: int = 0  # of the whole run; 0: not known
    note: str = ""  # on the number of units
    used: int = 0  # devices that compute; 0: all
    size: str = ""  # what could be made smaller to fit, as the fields of the configuration that say it
    fitting: str = ""  # the largest size that fits, and how it is known; empty if this one fits or none does

    @property
    def needed_bytes(self) -> int:
        """The most that a device holds: in a step, with a copy of what is being saved."""
        return self.compiled.peak_bytes + self.copied_bytes

    @property
    def fits(self) -> bool:
        """Whether the device has what the program needs."""
        return self.needed_bytes <= self.free_bytes

    @property
    def a_unit(self) -> str:
        """The unit with its article."""
        return f"{'an' if self.unit[0] in 'aeiou' else 'a'} {self.unit}"

    @property
    def unit_of_run(self) -> str:
        """The unit in the number that the whole run has of it."""
        return self.unit + ("" if self.units == 1 else "es" if self.unit.endswith("tch") else "s")

    @property
    def count(self) -> int:
        """The number of devices of the machine that compute."""
        return self.used or (len(self.machine.devices) if self.machine else 0)


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asks for: a machine, and where the report goes."""

    machine: devices.Machine | None = None  # None: the devices of this process
    json: bool = False
    hlo: str = ""  # a file for the optimized program; empty: none

    @property
    def platform(self) -> str:
        """JAX's name of the platform: of the machine, else of this process."""
        return self.machine.platform if self.machine else runtime.platform()


FLAGS = {
    "dry_run": cli.Flag(
        "print what a step takes: shapes, memory, arithmetic; compute nothing", default=False, kind=bool
    ),
    "device": cli.Flag(f"with --dry_run: a machine to plan for, which need not be there: {devices.EXAMPLES}"),
    "json": cli.Flag("with --dry_run: print one line of JSON and nothing else", default=False, kind=bool),
    "hlo": cli.Flag("with --dry_run: a file for the optimized program, in XLA's text form"),
}


def requested(arguments: cli.Arguments) -> Request | None:
    """What the flags ask for, None if no dry run; call it before JAX starts.

    InputError for a flag that means nothing without --dry_run, and for a machine that cannot be compiled for.
    """
    if arguments.dry_run:
        compiling.leave_cache()  # before whatever is compiled on the way to the plan
        machine = devices.machine(arguments.device) if arguments.device else None
        return Request(machine, arguments.json, arguments.hlo or "")
    for name in ("device", "json", "hlo"):
        if arguments.values[name]:
            raise errors.InputError(f"--{name} belongs to a plan and not to a run: add --dry_run, or leave it out")
    return None


def show(plan: Plan, request: Request) -> None:
    """Print the report and write the program, as asked for."""
    if request.hlo and plan.compiled.text is not None:
        files.write_atomic(pathlib.Path(request.hlo), plan.compiled.text.encode())
    if request.json:
        printable.show(json.dumps(as_dict(plan)))
        return
    for line in lines(plan, request):
        printable.show(printable.line(line))


def count(machine: devices.Machine | None, compiled: compiling.Compiled) -> counts.Counts | None:
    """The counts of a program; None if there is no machine to compare them with, or no program."""
    if machine is None or compiled.text is None:
        return None
    # In the order of a mesh: a collective names devices by their place in it.
    devices_ = sharding.grid(machine.devices, 1).flat
    return counts.count(compiled.text, [machine.near[device.id] for device in devices_])


def as_dict(plan: Plan) -> dict[str, Any]:
    """The report as JSON holds it: bytes of one device, seconds, and what they rest on."""
    counted = count(plan.machine, plan.compiled)
    found = {
        "device": plan.machine.name if plan.machine else None,
        "devices": plan.title,
        "batch": list(plan.shapes),
        "parameters": plan.parameters,
        "bytes": {**plan.parts, "temporaries": plan.compiled.temporary_bytes},
        "arguments_bytes": plan.compiled.argument_bytes,
        "peak_bytes": plan.compiled.peak_bytes,
        "needed_bytes": plan.needed_bytes,
        "free_bytes": plan.free_bytes,
        "fits": plan.fits,
        "largest_that_fits": plan.fitting or None,
        "flops": plan.work.flops,
        "audio_seconds": plan.work.audio_seconds,
        "compile_seconds": round(plan.compiled.seconds, 1),
    }
    if counted is None:
        return found
    parts = roofline.seconds(plan.machine.chip, plan.count, plan.work, counted)
    least = max(parts.values())
    return {
        **found,
        "basis": "estimated from the compiled program, not measured",
        "traffic_bytes": counted.traffic_bytes,
        "cycles": counted.cycles,
        "kernels_without_cycles": counted.kernels,
        "kernel_flops": counted.kernel_flops,
        "kernel_bytes": counted.kernel_bytes,
        "unknown_loops": counted.unknown_loops,
        "collectives": [dataclasses.asdict(one) for one in counted.collectives],
        "seconds": parts,
        "binds": roofline.binding(parts),
        "audio_seconds_per_second_at_most": plan.work.audio_seconds / least,
        "days_at_least": plan.units * least / SECONDS_OF_A_DAY if plan.units else None,
    }


def lines(plan: Plan, request: Request) -> Iterator[str]:
    """The report as text."""
    compiled = plan.compiled
    if not plan.fits:
        yield (
            f"does not fit: a device needs {in_words(plan.needed_bytes)} and has {in_words(plan.free_bytes)}; "
            f"{plan.fitting or f'nothing smaller was found to fit: change {plan.size}'}"
        )
    yield plan.title
    yield from plan.shapes
    yield f"parameters {plan.parameters:,}"
    if compiled.text is not None:
        for name, size in {**plan.parts, "temporaries": compiled.temporary_bytes}.items():
            yield f"  {name:<12} {in_words(size):>10} per device"
    yield f"{plan.unit:<10} {in_words(compiled.peak_bytes)} per device at its peak, as XLA plans it"
    if plan.copied_bytes:
        copied, free = in_words(plan.copied_bytes), in_words(plan.free_bytes)
        yield f"saving     {copied} more per device for a moment; free: {free}"
    yield f"arithmetic {plan.work.flops / 1e12:.4g} TFLOP {plan.a_unit} (matrix products only)"
    counted = count(plan.machine, plan.compiled)
    if counted is not None:
        yield from _estimates(plan, counted)
    written = f"the program is in {request.hlo}" if request.hlo and compiled.text is not None else "nothing was written"
    yield f"compiled in {compiled.seconds:.1f} s; {written}"


def _estimates(plan: Plan, counted: counts.Counts) -> Iterator[str]:
    chip = plan.machine.chip
    parts = roofline.seconds(chip, plan.count, plan.work, counted)
    rate = chip.flops(plan.work.dtype, plan.work.precision)
    yield "Estimates from the compiled program, each as if it ran alone at the chip's best rate. Nothing was measured."
    products = f"{plan.work.dtype} products" + ("" if plan.work.dtype == "bfloat16" else f" at {plan.work.precision}")
    yield f"  arithmetic {_time(parts['arithmetic'])} at {rate / 1e12:.4g} TFLOP/s, {products}"
    bandwidth = chip.memory_bandwidth / chip.devices
    yield f"  memory     {_time(parts['memory'])}: {in_words(counted.traffic_bytes)} at {bandwidth / 1e9:.4g} GB/s"
    if counted.cycles:
        clock = f" at {chip.clock_hz / 1e9:g} GHz" if chip.clock_hz else ""
        shown = _time(parts["cycles"]) if "cycles" in parts else "unknown"
        yield f"  cycles     {shown}: {counted.cycles / 1e6:.1f} M{clock}, as XLA estimates instructions"
    if counted.kernels:
        least = _time(roofline.kernel_seconds(chip, plan.work, counted))
        yield f"             {least} of it at least for {counted.kernels} calls of kernels without an estimate"
    if plan.count > 1:
        yield f"  collectives {_time(parts['collectives'])}: {_collectives(counted.collectives)}"
    if counted.unknown_loops:
        yield f"  {counted.unknown_loops} loops do not tell how often they turn; each is counted once"
    least = max(parts.values())
    rate = plan.work.audio_seconds / least
    yield f"binds      {roofline.binding(parts)}: {plan.a_unit} takes {_time(least)} at least"
    yield f"at most    {rate:,.0f} audio-seconds per second" + (
        f", {rate / plan.count:,.0f} a device" * (plan.count > 1)
    )
    if plan.units:
        yield f"the run    {_long(plan.units * least)} at least, {plan.units:,} {plan.unit_of_run}{plan.note}"


def bytes_per_device(tree: Any) -> int:
    """Bytes that one device holds of a tree of sharded arrays, which may be shapes alone."""
    # The shard, not the array: under fsdp a device holds only its cut of a parameter.
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _collectives(found: tuple[collectives.Collective, ...]) -> str:
    """`all-reduce f32 x 1, 380 MB` for each kind and type of elements."""
    groups: dict[tuple[str, str], list[collectives.Collective]] = {}
    for one in found:
        groups.setdefault((one.kind, one.dtypes), []).append(one)
    return "; ".join(
        f"{kind} {dtypes} x {sum(one.times for one in each)}, "
        f"{in_words(sum(one.times * one.payload_bytes for one in each))}"
        for (kind, dtypes), each in groups.items()
    )


def _time(seconds: float) -> str:
    scale, unit = next((x for x in ((1, "s"), (1e3, "ms")) if seconds * x[0] >= 1), (1e6, "us"))
    return f"{seconds * scale:.3g} {unit}"


def _long(seconds: float) -> str:
    for unit, size in (("days", SECONDS_OF_A_DAY), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return _time(seconds)


def in_words(size: int | float) -> str:
    """Bytes as text, decimal: 12.3 MB, 1.25 GB."""
    if size >= 1e9:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:.0f} bytes"
