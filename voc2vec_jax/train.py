"""Pre-trains a model, goes on with a run, or says where one stands. A rerun with the same --workdir resumes.

voc2vec train --config=quickstart --workdir=runs/quickstart            a first run, minutes on a CPU
voc2vec train --config=voc125 --workdir=runs/voc2vec                   the paper's recipe
voc2vec train --config=voc125:tiny --config.sets=mine --workdir=RUN    a tiny model on a set of your own
voc2vec train --status --workdir=RUN                                   where it stands
"""

import contextlib
import pathlib
import sys
from collections.abc import Sequence

from voc2vec_jax.pretraining import status
from voc2vec_jax.runs import program

if __name__ == "__main__" and status.asked(sys.argv[1:]):
    sys.exit(program.run(status.main))  # before the imports below, which take longer than the answer

import jax
import ml_collections

from voc2vec_jax.planning import report
from voc2vec_jax.pretraining import capacity, changes, dry_run, initial_weights, loop
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import start as training_start
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import agreement, checkpoint, cli, configuration, cpu_tuning, distributed, logs, runtime, sharding
from voc2vec_jax.runs import folder as run_folder

FLAGS = {
    "config": cli.Flag("a recipe, by name or file", kind=cli.CONFIG, required=True, recipes=pretraining_recipe.RECIPES),
    "workdir": cli.Flag("run folder; a rerun with the same folder resumes", required=True, shown="FOLDER"),
    "resume_with": cli.Flag("fields of the configuration that change when the run is resumed, such as peak_lr,sets"),
    "status": status.FLAGS["status"],
    **report.FLAGS,
    **distributed.FLAGS,
}


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    if status.asked(argv):
        return status.main(argv)
    cpu_tuning.keep_memory()
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec train", about=__doc__)
    request = report.requested(arguments)
    distributed.join(arguments)
    if request is not None:
        return dry_run.run(arguments.config, request)
    return train(arguments.config, arguments.workdir, changes.named(arguments.config, arguments.resume_with or ""))


def train(config: ml_collections.ConfigDict, workdir: str, resume_with: Sequence[str] = ()) -> int:
    """Run or resume the pre-training that `config` describes; returns the exit status.

    Fields in `resume_with` may have other values than those of the run that is resumed.
    """
    run_folder.keep_earlier(workdir, config, pretraining_recipe.EARLIER, resume_with)
    pretraining_recipe.check(config)
    runtime.set_up_jax(config)
    config.dtype = runtime.computed_in(config.dtype, runtime.platform())
    config.normalize = agreement.decided_by_first(lambda: initial_weights.settled_normalize(config, workdir))
    chosen = capacity.settle(config, jax.devices())
    family, model = pretraining_recipe.build_model(config)
    mesh = sharding.make_mesh(config.fsdp)
    groups, micros = pretraining_recipe.loss_groups(config, mesh.size)
    layout = pretraining_recipe.batch_layout(config, groups)
    functions = training_step.on_mesh(config, family, model, mesh)
    agreement.check_same(dict(configuration.fields(config)))
    folder = pathlib.Path(workdir)
    examples = agreement.first_before_others(lambda: changes.open_examples(config, folder, layout, model.min_samples))
    with run_folder.first_attempt(workdir), contextlib.ExitStack() as stack:
        changed = run_folder.claim_for_all(
            stack, workdir, configuration.as_dict(config), resume_with=resume_with, **pretraining_recipe.RESUMING
        )
        stop = stack.enter_context(distributed.stop_signal())
        saver = stack.enter_context(
            checkpoint.Checkpoints(workdir, config.keep_checkpoints, config.keep_every_steps or None)
        )
        copy = agreement.process_index() == 0
        targets = agreement.first_before_others(
            lambda: unit_store.targets_for_run(config, model, examples.corpus, folder, copy=copy)
        )
        identity = training_start.identity(config, examples, targets)
        history = agreement.decided_by_first(lambda: run_folder.history(workdir))
        start = training_start.restore_or_start(
            config, folder, functions, identity, examples.plan, targets, saver, resume_with, history
        )
        changes.record(config, folder, examples, start, changed)
        loop.describe(config, folder, functions, examples, start.plan_offset, str(chosen or ""))
        batches = pretraining_data.DeviceBatches(config, examples, targets, mesh, micros)
        metrics = stack.enter_context(logs.Metrics(workdir, start.step, config.tensorboard, config.wandb))
        return loop.pretrain(config, folder, functions, batches, saver, metrics, identity, start, stop)


if __name__ == "__main__":
    program.leave(distributed.run(main))
