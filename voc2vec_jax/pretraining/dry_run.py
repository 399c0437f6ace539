"""What a pre-training run takes, read off its compiled step: shapes, memory, arithmetic; of a named machine, its time.

Nothing is computed, and nothing but the optimized program is written, where a file for it is given.
"""

import dataclasses
import math
from collections.abc import Iterator

import jax
import ml_collections

from voc2vec_jax import audio, errors
from voc2vec_jax.models import flops
from voc2vec_jax.planning import compiling, devices, report, roofline
from voc2vec_jax.pretraining import capacity
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import configuration, logs, runtime, sharding

TRIES = 3  # compilations in search of the largest batch that fits: each may take minutes


def run(config: ml_collections.ConfigDict, request: report.Request) -> int:
    """Report what `config` takes on the machine that is asked for, else on the devices that there are."""
    machine = request.machine
    runtime.set_up_jax(config)
    config.dtype = runtime.computed_in(config.dtype, request.platform)
    compiling.leave_cache()
    chosen = capacity.settle(config, *((machine.devices, machine.free_bytes) if machine else (jax.devices(), None)))
    found = plan(config, machine, chosen and chosen.compiled)
    if chosen:
        found = dataclasses.replace(found, shapes=(f"chosen     {chosen}, {config.dtype}", *found.shapes))
    if machine is not None and not found.fits:
        found = dataclasses.replace(found, fitting=fitting(config, machine, found))
    if logs.speaks():
        report.show(found, request)
    return errors.EXIT_DONE


def plan(
    config: ml_collections.ConfigDict, machine: devices.Machine | None, compiled: compiling.Compiled | None = None
) -> report.Plan:
    """The update for its longest bucket, compiled here unless it is given."""
    family, model = pretraining_recipe.build_model(config)
    mesh = sharding.make_mesh(config.fsdp, machine.devices if machine else None)
    groups, micros = pretraining_recipe.loss_groups(config, mesh.size)
    layout = pretraining_recipe.batch_layout(config, groups)
    functions = training_step.on_mesh(config, family, model, mesh)
    state = functions.state
    batches = [capacity.batch_of(model, layout, bucket, micros, mesh) for bucket in range(len(layout.bucket_samples))]
    # Every bucket holds about as much audio; in the longest the attention matrices, t * t a row, are largest.
    compiled = compiled or compiling.compile(functions.update.lower(state, batches[-1]))
    g, a, rows, samples = batches[-1]["audio"].shape
    parts = {
        "parameters": report.bytes_per_device(state["params"]),
        "optimizer": report.bytes_per_device(state["opt_state"]),
        **({"average": report.bytes_per_device(state["ema"])} if "ema" in state else {}),
        "batch": report.bytes_per_device(batches[-1]),
    }
    return report.Plan(
        machine=machine,
        title=f"{devices.title(machine)}, fsdp {config.fsdp}",
        shapes=tuple(shapes(batches)),
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(state["params"])),
        parts=parts,
        # A checkpoint is copied on the device first, so that training goes on while it is written.
        copied_bytes=report.bytes_per_device(state),
        free_bytes=devices.free_bytes(machine),
        compiled=compiled,
        work=roofline.Work(
            flops=g * a * rows * sum(flops.training(model, samples).values()),
            audio_seconds=g * a * rows * samples / audio.RATE_HZ,
            dtype=model.encoder.dtype,
            precision=config.matmul_precision,
        ),
        units=config.total_steps,
        size="batch_seconds, group_rows, remat or fsdp",
    )


def shapes(batches: list[dict]) -> Iterator[str]:
    """The batch of every bucket."""
    for batch in batches:
        g, a, rows, samples = batch["audio"].shape
        heard = g * a * rows * samples / audio.RATE_HZ
        yield f"batch      int16 {list(batch['audio'].shape)} (groups x micro-batches x clips x samples), {heard:.0f} s"


def fitting(config: ml_collections.ConfigDict, machine: devices.Machine, large: report.Plan) -> str:
    """The largest batch of a device that fits where `large` does not, in words; empty if none was found.

    Guessed from temporaries that grow with the batch, and compiled before it is said.
    """
    fixed = sum(large.parts.values()) + large.copied_bytes
    share = (large.free_bytes - fixed) / max(1, large.needed_bytes - fixed)  # of what the large batch needs
    for sizes in list(smaller(config, len(machine.devices), share))[:TRIES]:
        tried = config.copy_and_resolve_references()
        for name, value in sizes.items():
            configuration.override(tried, name, str(value))
        found = plan(tried, machine)
        if found.fits:
            words = " ".join(f"--config.{name}={value}" for name, value in sizes.items())
            return f"the largest found to fit: {words}, compiled too: {report.in_words(found.needed_bytes)}"
    return ""


def smaller(config: ml_collections.ConfigDict, devices_: int, share: float) -> Iterator[dict[str, int]]:
    """Sizes that may fit where only `share` of the present batch does, the largest first.

    Fewer groups at once leave every result as it is; fewer clips in a group change the recipe, and come last.
    """
    groups, _ = pretraining_recipe.loss_groups(config, devices_)
    of_device, now = groups // devices_, config.groups_per_device
    yield from (
        {"groups_per_device": at_once}
        for at_once in range(now - 1, 0, -1)
        if of_device % at_once == 0 and at_once <= max(1, now * share)
    )
    share *= now
    if share < 1:
        clips = groups * config.group_rows
        yield from (
            {"groups_per_device": 1, "group_rows": rows}
            for rows in range(config.group_rows - 1, 0, -1)
            if clips % (rows * devices_) == 0 and rows <= max(1, config.group_rows * share)
        )
