"""Pre-training: `python -m voc2vec_jax.train --config=configs/voc125.py --workdir=RUN`."""

import contextlib
import pathlib
import sys

import jax
import ml_collections

from voc2vec_jax.planning import report
from voc2vec_jax.pretraining import capacity, dry_run, loop
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import start as training_start
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import agreement, checkpoint, cli, configuration, cpu_tuning, distributed, logs, runtime, sharding
from voc2vec_jax.runs import folder as run_folder

FLAGS = {
    "config": cli.Flag("recipe: PATH or PATH:ARGUMENT", kind=cli.CONFIG, required=True),
    "workdir": cli.Flag("run folder; a rerun with the same folder resumes", required=True),
    **report.FLAGS,
    **distributed.FLAGS,
}
# Fields that may change when a run is resumed, because they do not change what it computes.
MAY_DIFFER = ("data_dir", "input", "workers", "checkpoint_every_steps", "keep_checkpoints", "keep_every_steps")
MAY_DIFFER += ("tensorboard", "stop_on_collapse", "log_every_steps", "groups_per_device", "remat", "attention", "fsdp")
MAY_DIFFER += ("deterministic",)
# What version 0.1.0 did where its configuration says nothing
EARLIER = {"dropout_bits": "threefry"}


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    cpu_tuning.keep_memory()
    arguments = cli.parse(argv, flags=FLAGS, program="python -m voc2vec_jax.train")
    request = report.requested(arguments)
    distributed.join(arguments)
    if request is not None:
        pretraining_recipe.check(arguments.config)
        return dry_run.run(arguments.config, request)
    return train(arguments.config, arguments.workdir)


def train(config: ml_collections.ConfigDict, workdir: str) -> int:
    """Run or resume the pre-training that `config` describes; returns the exit status."""
    run_folder.keep_earlier(workdir, config, EARLIER)
    pretraining_recipe.check(config)
    runtime.set_up_jax(config)
    config.dtype = runtime.computed_in(config.dtype, runtime.platform())
    chosen = capacity.settle(config, jax.devices())
    family, model = pretraining_recipe.build_model(config)
    mesh = sharding.make_mesh(config.fsdp)
    groups, micros = pretraining_recipe.loss_groups(config, mesh.size)
    layout = pretraining_recipe.batch_layout(config, groups)
    functions = training_step.on_mesh(config, family, model, mesh)
    agreement.check_same(dict(configuration.fields(config)))
    examples = agreement.first_before_others(lambda: pretraining_data.open_examples(config, layout, model.min_samples))
    folder = pathlib.Path(workdir)
    with contextlib.ExitStack() as stack:
        run_folder.claim_for_all(stack, workdir, configuration.as_dict(config), MAY_DIFFER, earlier=EARLIER)
        stop = stack.enter_context(distributed.stop_signal())
        saver = stack.enter_context(
            checkpoint.Checkpoints(workdir, config.keep_checkpoints, config.keep_every_steps or None)
        )
        copy = agreement.process_index() == 0
        targets = agreement.first_before_others(
            lambda: unit_store.targets_for_run(config, model, examples.corpus, folder, copy=copy)
        )
        identity = training_start.identity(config, examples, targets)
        start = training_start.restore_or_start(config, folder, functions, identity, targets, saver)
        loop.describe(config, folder, functions, examples, str(chosen or ""))
        batches = pretraining_data.DeviceBatches(config, examples, targets, mesh, micros)
        metrics = stack.enter_context(logs.Metrics(workdir, start.step, tensorboard=config.tensorboard))
        return loop.pretrain(config, folder, functions, batches, saver, metrics, identity, start, stop)


if __name__ == "__main__":
    sys.exit(distributed.run(main))
