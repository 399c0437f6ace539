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
from voc2vec_jax.pretraining import batch_layout, capacity
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import configuration, logs, runtime, sharding

TRIES = 3  # compilations in search of the largest batch that fits: each may take minutes


def run(config: ml_collections.ConfigDict, request: report.Request) -> int:
    """Report what `config` takes on the machine that is asked for, else on the devices that there are.

    InputError for a configuration that a run would refuse.
    """
    pretraining_recipe.check(config)
    machine = request.machine
    runtime.set_up_jax(config)
    config.dtype = runtime.computed_in(config.dtype, request.platform)
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
    """The update, compiled here unless it is given."""
    family, model = pretraining_recipe.build_model(config)
    mesh = sharding.make_mesh(config.fsdp, machine.devices if machine else None)
    groups, micros = pretraining_recipe.loss_groups(config, mesh.size)
    layout = pretraining_recipe.batch_layout(config, groups)
    functions = training_step.on_mesh(config, family, model, mesh)
    state = functions.state
    batch = capacity.batch_of(model, layout, micros, mesh, pretraining_recipe.normalize_eps(config))
    compiled = compiled or compiling.compile(functions.update.lower(state, batch))
    # Every bucket holds about as much audio; in the longest the attention matrices, t * t a row, are largest.
    rows = groups * layout.group_rows
    parts = {
        "parameters": report.bytes_per_device(state["params"]),
        "optimizer": report.bytes_per_device(state["opt_state"]),
        **({"average": report.bytes_per_device(state["ema"])} if "ema" in state else {}),
        "batch": report.bytes_per_device(batch),
    }
    return report.Plan(
        machine=machine,
        title=f"{devices.title(machine)}, fsdp {config.fsdp}",
        shapes=(shapes(layout, batch),),
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(state["params"])),
        parts=parts,
        # A checkpoint is copied on the device first, so that training goes on while it is written.
        copied_bytes=report.bytes_per_device(state),
        free_bytes=devices.free_bytes(machine),
        compiled=compiled,
        work=roofline.Work(
            flops=rows * sum(flops.training(model, layout.crop_samples).values()),
            audio_seconds=rows * layout.crop_samples / audio.RATE_HZ,
            dtype=model.encoder.dtype,
            precision=config.matmul_precision,
        ),
        units=config.total_steps,
        size="batch_seconds, group_rows, remat or fsdp",
    )


def shapes(layout: batch_layout.BatchLayout, batch: dict[str, jax.ShapeDtypeStruct]) -> str:
    """The batch of an update, and what a loss group may hold."""
    clips = [f"{layout.group_rows_of(b)} x {samples}" for b, samples in enumerate(layout.bucket_samples)]
    heard = layout.groups * layout.buffer_samples / audio.RATE_HZ
    return (
        f"batch      int16 {list(batch['audio'].shape)} (devices x micro-batches x groups x samples), {heard:.0f} s; "
        f"clips x samples of a group: {', '.join(clips)}"
    )


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
    most, now = capacity.at_once(config, devices_), config.groups_per_device
    yield from (
        {"groups_per_device": count}
        for count in range(now - 1, 0, -1)
        if most % count == 0 and count <= max(1, now * share)
    )
    share *= now
    if share < 1:
        clips = groups * config.group_rows
        yield from (
            {"groups_per_device": 1, "group_rows": rows}
            for rows in range(config.group_rows - 1, 0, -1)
            if clips % (rows * devices_) == 0 and rows <= max(1, config.group_rows * share)
        )
