"""What the base programs cost on accelerators, counted from the programs compiled for them, stays within 5 %.

`python tests/planning/recorded_counts_test.py [PROGRAM]` compiles, prints and records them anew, after a change that
is meant. It needs the compilers of the extras plan-tpu and plan-cuda, and some minutes.
"""

import json
import pathlib
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

import compilers  # noqa: E402
import jax  # noqa: E402
import tiny_learners  # noqa: E402

from voc2vec_jax.finetuning import engine as fold_engine  # noqa: E402
from voc2vec_jax.finetuning import learners, settings  # noqa: E402
from voc2vec_jax.inference import forward  # noqa: E402
from voc2vec_jax.models import encoder as encoders  # noqa: E402
from voc2vec_jax.models import heads, wav2vec2  # noqa: E402
from voc2vec_jax.planning import compiling, report  # noqa: E402
from voc2vec_jax.pretraining import dry_run  # noqa: E402
from voc2vec_jax.runs import configuration, sharding  # noqa: E402

pytestmark = pytest.mark.accelerator
RECORDED = pathlib.Path(__file__).with_name("recorded_counts.json")
TOLERANCE = 0.05


def update(machine, micros=1):
    """The update of the paper's model: 8 clips of 10 s a device and micro-batch, in bfloat16; of one length."""
    config = configuration.load(str(ROOT / "configs" / "voc125.py"))
    config.batch_seconds = 80.0 * len(machine.devices) * micros
    config.bucket_samples = (config.crop_samples,)  # each further length is a branch, and takes as long to compile
    config.groups_per_device, config.remat, config.fsdp, config.dtype = 1, "none", 1, "bfloat16"
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    return dry_run.plan(config, machine)


def shapes(place, **arrays):
    return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=place) for name, (shape, dtype) in arrays.items()}


def encoder_shapes(config, place):
    """The parameters of an encoder, as shapes."""
    params = jax.eval_shape(lambda: wav2vec2.init_params(config, jax.random.key(0)))["encoder"]
    return {"encoder": jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), params)}


def compiled(machine, lowered):
    return types.SimpleNamespace(machine=machine, compiled=compiling.compile(lowered))


def embedding(machine):
    """The mean of the last layer's frames of 64 clips of 10 s, in bfloat16."""
    config = wav2vec2.Config(encoder=encoders.EncoderConfig(dtype="bfloat16"))
    mesh = sharding.make_mesh(1, machine.devices)
    embed = forward.compiled_embed(machine.devices[0].platform, mesh)
    batch = shapes(
        sharding.over_batch(mesh, 0), audio=((64, 160_000), "f4"), lengths=((64,), "i4"), kept=((64, 2), "i4")
    )
    params = encoder_shapes(config, sharding.replicated(mesh))
    with jax.default_matmul_precision("default"):
        lowered = embed.lower("wav2vec2", config, (config.encoder.depth + 1,), "mean", params, *batch.values())
    return compiled(machine, lowered)


def fold_step(machine, slots):
    """A step of so many folds in one program: 16 clips of 2 s each, in bfloat16, all parameters trained."""
    config = wav2vec2.Config(encoder=encoders.EncoderConfig(dtype="bfloat16"))
    learner = learners.Finetuner(
        "wav2vec2", config, heads.Config(5, dtype="bfloat16"), ((16, 32_000),), normalize=True
    )  # fmt: skip
    recipe = tiny_learners.recipe(batch_clips=16)
    axis = settings.fold_axis(machine.platform, convolves=True)
    engine = fold_engine.Engine(learner, recipe, slots, axis, machine.devices[:1])
    state = jax.eval_shape(lambda: fold_engine.start(learner, recipe, 0, None))
    slotted = jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype, sharding=engine.sharded), state)
    fold = shapes(
        engine.sharded, number=((slots,), "i4"), total_steps=((slots,), "i4"), class_weights=((slots, 5), "f4")
    )
    rows = jax.ShapeDtypeStruct((slots, 1, 16), "i4", sharding=engine.sharded)
    clips = dict.fromkeys(("block_start", "samples", "labels"), ((400,), "i4")) | {"blocks": ((8_000, 1_600), "i2")}
    with jax.default_matmul_precision("highest"):
        lowered = engine.train.lower(slotted, fold, rows, shapes(engine.replicated, **clips))
    return compiled(machine, lowered)


PROGRAMS = {
    "update v5e:1x1": lambda: update(compilers.machine("v5e:1x1")),
    "update v5e:2x4": lambda: update(compilers.machine("v5e:2x4"), micros=4),
    "update h100": lambda: update(compilers.machine("h100")),
    "embedding v5e:1x1": lambda: embedding(compilers.machine("v5e:1x1")),
    "embedding h100": lambda: embedding(compilers.machine("h100")),
    "four folds v5e:1x1": lambda: fold_step(compilers.machine("v5e:1x1"), 4),  # ten do not fit into 16 GB
    "ten folds h100": lambda: fold_step(compilers.machine("h100"), 10),
}


def figures(plan):
    """The counts of a plan's program, of one device."""
    counted = report.count(plan.machine, plan.compiled)
    found = {
        "temporary_bytes": plan.compiled.temporary_bytes,
        "traffic_bytes": counted.traffic_bytes,
        "collectives": sum(one.times for one in counted.collectives),
        "collective_bytes": sum(one.times * one.payload_bytes for one in counted.collectives),
    }
    return found | ({"cycles": counted.cycles} if counted.cycles else {})


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_base_program_costs_what_was_recorded(program):
    found, recorded = figures(PROGRAMS[program]()), json.loads(RECORDED.read_text())[program]
    assert found.keys() == recorded.keys()
    off = {
        name: f"{value:.4g}, recorded {recorded[name]:.4g}"
        for name, value in found.items()
        if abs(value - recorded[name]) > TOLERANCE * recorded[name]
    }
    assert not off, (
        f"{off}: if the change is meant, record it with `python tests/planning/{pathlib.Path(__file__).name}`"
    )


if __name__ == "__main__":
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for name in sys.argv[1:] or PROGRAMS:
        known[name] = figures(PROGRAMS[name]())
        print(name, known[name], flush=True)
        RECORDED.write_text(json.dumps(known, indent=1) + "\n")
