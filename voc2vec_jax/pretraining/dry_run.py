"""What a pre-training run takes, read off its compiled step: shapes, memory, arithmetic. Nothing is written."""

import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from voc2vec_jax import audio
from voc2vec_jax.models import flops
from voc2vec_jax.pretraining import batch_plan
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import logs, memory, sharding


def report(functions: training_step.TrainingFunctions, layout: batch_plan.BatchLayout, micros: int, mesh: Mesh) -> None:
    """Compile the update for its longest bucket and print what is known of it, from process 0."""
    # The cache would write to disk and hide how long compiling takes.
    jax.config.update("jax_enable_compilation_cache", False)
    model, state = functions.model, functions.state
    batches = [batch_of(model, layout, bucket, micros, mesh) for bucket in range(len(layout.bucket_samples))]
    began = time.monotonic()
    # Every bucket holds about as much audio; in the longest the attention matrices, t * t a row, are largest.
    compiled = functions.update.lower(state, batches[-1]).compile()
    seconds = time.monotonic() - began
    if logs.speaks():
        for line in lines(model, state, batches, mesh, compiled.memory_analysis(), seconds):
            print(line)


def batch_of(
    model: Any, layout: batch_plan.BatchLayout, bucket: int, micros: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and shardings of the arrays of a step, [g, a, r, ...] as `update` takes them."""
    samples, rows = layout.bucket_samples[bucket], layout.group_rows_of(bucket)
    shape = (layout.groups // micros, micros, rows)
    arrays = {"audio": ((*shape, samples), jnp.int16), "lengths": (shape, jnp.int32), "index": (shape, jnp.int32)}
    if hasattr(model, "label_rate_hz"):
        arrays["units"] = ((*shape, model.encoder.frames(samples)), jnp.int32)
    place = sharding.over_batch(mesh, 0)
    return {name: jax.ShapeDtypeStruct(*of, sharding=place) for name, of in arrays.items()}


def bytes_per_device(tree: Any) -> int:
    """Bytes that one device holds of a tree of sharded arrays."""
    # The shard, not the array: under fsdp a device holds only its cut of a parameter.
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def lines(model: Any, state: Any, batches: list[dict], mesh: Mesh, planned: Any, seconds: float) -> Iterator[str]:
    """The report. Bytes are decimal and per device."""
    fsdp, devices = mesh.shape["fsdp"], mesh.size
    device = jax.local_devices()[0]
    yield f"{devices} x {device.device_kind} in {jax.process_count()} process(es), fsdp {fsdp}"
    for batch in batches:
        g, a, rows, samples = batch["audio"].shape
        heard = g * a * rows * samples / audio.RATE_HZ
        yield f"batch      int16 {list(batch['audio'].shape)} (groups x micro-batches x clips x samples), {heard:.0f} s"
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(state["params"]))
    yield f"parameters {count:,}"
    parts = {
        "parameters": bytes_per_device(state["params"]),
        "optimizer": bytes_per_device(state["opt_state"]),
        "batch": bytes_per_device(batches[-1]),
        "temporaries": planned.temp_size_in_bytes,
    }
    for name, size in parts.items():
        yield f"  {name:<12} {in_words(size):>10} per device"
    # Donated arguments are counted as results too; `alias` is what they share.
    peak = planned.argument_size_in_bytes + planned.output_size_in_bytes + planned.temp_size_in_bytes
    peak -= planned.alias_size_in_bytes
    yield f"step       {in_words(peak)} per device at its peak, as XLA plans it"
    state_bytes = parts["parameters"] + parts["optimizer"]
    # CPU devices share the machine's memory, an accelerator has its own.
    free = memory.bytes_free(device) / (1 if device.platform != "cpu" else len(jax.local_devices()))
    # A checkpoint is copied on the device first, so that training goes on while it is written.
    yield f"saving     {in_words(state_bytes)} more per device for a moment; free: {in_words(free)}"
    g, a, rows, samples = batches[-1]["audio"].shape
    operations = g * a * rows * sum(flops.training(model, samples).values())
    each = operations / devices
    yield f"arithmetic {operations / 1e12:.4g} TFLOP a step, {each / 1e12:.4g} per device (matrix products only)"
    yield f"compiled in {seconds:.1f} s; nothing was written"


def in_words(size: int | float) -> str:
    """Bytes as text, decimal: 12.3 MB, 1.25 GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
