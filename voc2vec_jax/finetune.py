"""Cross-validates a model on labelled clips: fine-tunes it once a fold, tests it, and sums up the scores.

    voc2vec finetune --config=finetune:folder --config.data=CLIPS --config.model=voc2vec-ls --workdir=runs/clips
    voc2vec finetune --config=finetune:donateacry --config.model=runs/quickstart --workdir=runs/donateacry
    voc2vec finetune --config=finetune:tasks --config.systems=paper --workdir=runs/paper

CLIPS is a folder with a folder for each class, or a manifest (csv: path,label[,group,split,start,end]). A rerun with
the same --workdir resumes. Where a field's value comes from: [P] the paper, [S] the official script, [T] a default of
transformers that the script leaves alone, [-] our choice.
"""

import pathlib

import ml_collections

from voc2vec_jax.finetuning import dry_run, grid
from voc2vec_jax.finetuning import recipe as finetuning_recipe
from voc2vec_jax.planning import report
from voc2vec_jax.runs import agreement, cli, configuration, cpu_tuning, distributed, program, runtime, signals

FLAGS = {
    "config": cli.Flag(
        "name or file of the recipe, and the data sets",
        kind=cli.CONFIG,
        required=True,
        shown="finetune:DATASET",
        recipes=finetuning_recipe.RECIPES,
    ),
    "workdir": cli.Flag("run folder; run again with the same one to resume", required=True, shown="FOLDER"),
    **report.FLAGS,
    **distributed.FLAGS,
}


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    cpu_tuning.keep_memory()
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec finetune", about=__doc__)
    request = report.requested(arguments)
    distributed.join(arguments)
    if request is not None:
        finetuning_recipe.check(arguments.config)
        runtime.set_up_jax(arguments.config)
        return dry_run.run(arguments.config, arguments.workdir, request)
    return finetune(arguments.config, arguments.workdir)


def finetune(config: ml_collections.ConfigDict, workdir: str) -> int:
    """Run or resume the cross-validations that `config` describes; returns the exit status."""
    finetuning_recipe.check(config)
    cpu_tuning.one_device_a_core()
    runtime.set_up_jax(config)
    with signals.StopSignal() as stop:  # before any work: JAX's runtime would swallow a SIGTERM
        distributed.share_stop(stop)
        agreement.check_same(dict(configuration.fields(config)))
        return grid.run(config, pathlib.Path(workdir), stop)


if __name__ == "__main__":
    program.leave(distributed.run(main))
