"""What an evaluation takes, read off the compiled program of its longest windows. Nothing is computed."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import forward, pretrained
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import worker
from voc2vec_jax.models import flops
from voc2vec_jax.planning import compiling, devices, report, roofline
from voc2vec_jax.runs import logs, sharding

TRIES = 3  # batches that are compiled in search of one that fits, each half of the one before


def run(
    model: pretrained.Model,
    items: evaluation_inputs.Items,
    settings: worker.EvaluationSettings,
    request: report.Request,
) -> int:
    """Report what the evaluation of `items` takes on the machine that is asked for, else on the local devices."""
    machine = request.machine
    mesh = sharding.make_mesh(devices=machine.devices if machine else jax.local_devices())
    layout = worker.layout_of(model, items, settings, mesh.size, request.platform)
    lengths, copies = items.lengths()
    heard = sum(lengths) * copies / audio.RATE_HZ
    windows = [window.stop - window.start for samples in lengths for window in layout.windows(samples)]
    samples = layout.bucket(max(windows, default=layout.window_samples))
    rows = layout.sizes[samples][0]
    found = plan(model, settings, mesh, machine, rows, samples, heard)
    for divisor in [2**k for k in range(1, TRIES + 1)] if machine and not found.fits else ():
        smaller = max(1, rows // mesh.size // divisor) * mesh.size
        tried = plan(model, settings, mesh, machine, smaller, samples, heard)
        if tried.fits:
            flag = f"--batch_seconds={smaller / mesh.size * samples / audio.RATE_HZ:.4g}"
            size = report.in_words(tried.needed_bytes)
            found = dataclasses.replace(found, fitting=f"half of it until it fits: {flag}, compiled too: {size}")
            break
    if logs.speaks():
        report.show(found, request)
    return errors.EXIT_DONE


def plan(
    model: pretrained.Model,
    settings: worker.EvaluationSettings,
    mesh: jax.sharding.Mesh,
    machine: devices.Machine | None,
    rows: int,
    samples: int,
    heard_seconds: float = 0.0,
) -> report.Plan:
    """Compile the forward pass of `rows` windows of `samples` on all devices; `heard_seconds` is all there is."""
    everywhere, cut = sharding.replicated(mesh), sharding.over_batch(mesh, 0)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), model.params)
    shapes = (((rows, samples), jnp.float32), ((rows,), jnp.int32), ((rows, 2), jnp.int32))
    batch = [jax.ShapeDtypeStruct(*of, sharding=cut) for of in shapes]
    layers, pool = _wanted(model, settings)
    with model.precision():
        embed = forward.compiled_embed(mesh.devices.flat[0].platform, mesh)
        lowered = embed.lower(model.family, model.exact, layers, pool, params, *batch)
        compiled = compiling.compile(lowered)
    seconds = rows * samples / audio.RATE_HZ
    parts = flops.forward(model.exact, samples)
    return report.Plan(
        machine=machine,
        title=devices.title(machine),
        shapes=(f"batch      float32 {[rows, samples]} (windows x samples), {seconds:.0f} s",),
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(params)),
        parts={"parameters": report.bytes_per_device(params), "batch": report.bytes_per_device(batch)},
        copied_bytes=0,
        free_bytes=devices.free_bytes(machine),
        compiled=compiled,
        work=roofline.Work(
            flops=rows * (sum(parts.values()) - parts["objective"]),
            audio_seconds=seconds,
            dtype=model.exact.encoder.dtype,
            precision="highest",
        ),
        unit="batch",
        units=math.ceil(heard_seconds / seconds),
        size="--batch_seconds or --window_seconds",
    )


def _wanted(model: pretrained.Model, settings: worker.EvaluationSettings) -> tuple[tuple[int, ...], str | None]:
    """Layers and pooling of the program; those that a head needs where probabilities are asked for."""
    if settings.kind == "embeddings":
        return model.layer_numbers(settings.layers), None if settings.pool == "none" else settings.pool
    last = model.config.encoder.depth + 1
    head = model.checkpoint.head
    pool = None if head is not None and head.pooling != "mean" else "mean"
    return (tuple(range(last)) if head is not None and head.layer_sum else (last,)), pool
