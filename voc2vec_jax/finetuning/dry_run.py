"""What a cross-validation takes, read off the compiled epoch of the folds that are trained side by side.

Clips are read, for their number and lengths decide the shapes; nothing is computed with them.
"""

import math
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from voc2vec_jax import audio, errors
from voc2vec_jax.convert import reader, sources
from voc2vec_jax.finetuning import capacity, cross_validation, jobs, settings, tasks
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.models import flops
from voc2vec_jax.planning import compiling, devices, report, roofline
from voc2vec_jax.runs import logs, runtime


def run(config: ml_collections.ConfigDict, workdir: str, request: report.Request) -> int:
    """Report what every job of `config` takes on the machine that is asked for, else on the local devices."""
    seen = set()
    for job in jobs.plan_jobs(config, pathlib.Path(workdir)):
        if job.fault:
            raise job.fault
        if job.seeds_of in seen:  # every seed takes the same
            continue
        seen |= {job.seeds_of} - {None}
        found = plan(job, request)
        if logs.speaks():
            report.show(found, request)
    return errors.EXIT_DONE


def plan(job: jobs.CrossValidationJob, request: report.Request) -> report.Plan:
    """Compile an epoch of as many folds as fit, or as the configuration says."""
    if job.how != "finetune":
        raise errors.InputError(
            f"{job.title} trains a small network on fixed features, which takes no planning: plan the evaluation that "
            "makes the features, or set --config.how=finetune"
        )
    source = sources.read(job.source)
    return plan_of(job, request, source, cross_validation.open_task(job, source))


def plan_of(
    job: jobs.CrossValidationJob, request: report.Request, source: reader.ModelWeights, task: tasks.Task
) -> report.Plan:
    """`plan` for weights and clips at hand; of the former only shapes matter, of the latter number and lengths."""
    config, machine = job.config, request.machine
    config.dtype = runtime.computed_in(config.dtype, request.platform)
    splits = cross_validation.split(config, task).splits
    setting = settings.build(job, task, splits, source, request.platform)
    learner, recipe = setting.trained.learner, setting.recipe
    abstract = jax.eval_shape(lambda: fold_engine.start(learner, recipe, 0, setting.trained.initial))
    used, slots = capacity.choose_slots(setting, abstract, len(splits), machine)
    engine = fold_engine.Engine(learner, recipe, slots, setting.axis, used)
    steps = max(setting.epoch_steps(fold) for fold in range(len(splits)))
    arguments = epoch(engine, setting, abstract, steps)
    compiled = compiling.compile(engine.train.lower(*arguments))
    state, fold, rows, data = arguments
    clips = slots * steps
    each = [(count, flops.training(learner.config, samples)) for count, samples in learner.sub_batches]
    return report.Plan(
        machine=machine,
        title=f"{task.title}, {job.title}: {slots} folds at once ({setting.axis}) on {len(used)} of "
        f"{devices.title(machine)}",
        shapes=tuple(
            f"batch      int16 {[count, samples]} (clips x samples), {steps} an epoch and fold"
            for count, samples in learner.sub_batches
        ),
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves((abstract.params, data.get("frozen", {})))),
        parts={
            "folds": report.bytes_per_device(state),
            "clips": report.bytes_per_device(data),
            "batch": report.bytes_per_device((fold, rows)),
        },
        copied_bytes=report.bytes_per_device(state),  # a save copies every fold's state
        free_bytes=devices.free_bytes(machine),
        compiled=compiled,
        work=roofline.Work(
            flops=clips * sum(count * (sum(parts.values()) - parts["objective"]) for count, parts in each),
            audio_seconds=clips * sum(count * samples for count, samples in learner.sub_batches) / audio.RATE_HZ,
            dtype=learner.config.encoder.dtype,
            precision=config.matmul_precision,
        ),
        unit="epoch",
        units=recipe.epochs * -(-len(splits) // slots),
        note=f" of {slots} folds, training alone and if no fold ends early",
        size="folds_at_once, batch_clips or remat",
        used=len(used),
    )


def epoch(
    engine: fold_engine.Engine, setting: settings.CrossValidationSetting, abstract: fold_engine.FoldState, steps: int
) -> tuple:
    """Shapes and shardings of what `engine.train` takes for `steps` batches of every slot."""

    def slotted(x):
        return jax.ShapeDtypeStruct((engine.slots, *jnp.shape(x)), jnp.result_type(x), sharding=engine.sharded)

    def shared(x):
        return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=engine.replicated)

    fold = {name: value[0] for name, value in setting.fold_batch([0]).items()}
    rows = np.zeros((steps, setting.recipe.batch_clips), np.int32)
    return (
        jax.tree.map(slotted, abstract),
        jax.tree.map(slotted, fold),
        slotted(rows),
        jax.tree.map(shared, dict(setting.trained.data)),
    )
