"""Vectors, class probabilities or scores over time of any number of recordings, in parts that a rerun completes.

voc2vec evaluate --model=voc2vec-ls --input=CLIPS --output=out                   vectors of every file of a folder
voc2vec evaluate --model=runs/clips --input=CLIPS --output=out --predict         class probabilities
voc2vec evaluate --model=runs/clips --input=NIGHT.wav --output=out --timeline    probabilities over time
voc2vec evaluate --model=voc2vec-ls --input=list.csv --output=out --shard=1/4    the first of four machines' share
"""

import os

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.inference import pretrained
from voc2vec_jax.inference.evaluation import again, dry_run, shard_assignment, worker
from voc2vec_jax.inference.evaluation import flags as evaluation_flags
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.inference.evaluation import scores as evaluation_scores
from voc2vec_jax.inference.timelines import drawing
from voc2vec_jax.inference.timelines import flags as timeline_flags
from voc2vec_jax.planning import report
from voc2vec_jax.runs import cli, cpu_tuning, logs, program, runtime

FLAGS = {**evaluation_flags.FLAGS, **timeline_flags.FLAGS}


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    cpu_tuning.keep_memory()
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec evaluate", about=__doc__)
    shard = shard_assignment.find(arguments.shard, os.environ)
    settings, request = evaluation_flags.settings_of(arguments), report.requested(arguments)
    is_timeline = settings.kind == "timeline"
    rules, wanted = timeline_flags.read(arguments, is_timeline)
    runtime.set_up_jax(
        ml_collections.ConfigDict({"deterministic": arguments.deterministic, "matmul_precision": "default"})
    )
    items = evaluation_inputs.open_input(arguments.input, arguments.data_dir)
    dtype = runtime.computed_in(arguments.dtype, request.platform if request else runtime.platform())
    model = pretrained.from_pretrained(arguments.model, dtype, attention=arguments.attention, context=arguments.context)
    if request is not None:
        return dry_run.run(model, items, settings, request)
    output = evaluation_output.OutputFolder(arguments.output, worker.describe(model, items, settings))
    program.can_resume()
    if is_timeline:
        drawing.check(rules, wanted, model.labels)
    own = shard.of(range(output.parts))
    for sentence in again.mark(output, items, own, arguments.retry, settings.threads).sentences():
        logs.say(sentence)
    numbers = shard.of(output.missing())
    logs.say(
        f"{errors.counted(len(items), 'recording')} in {errors.counted(output.parts, 'part')}, {shard}: "
        f"{errors.counted(len(numbers), 'part')} to do"
    )
    if numbers:
        logs.say(str(worker.Worker(model, items, output, settings).run(numbers)))
    logs.say(evaluation_scores.conclude(output))
    if is_timeline and not output.missing():
        logs.say(drawing.draw(output, items, rules, wanted, settings.how))
    return errors.EXIT_DONE


if __name__ == "__main__":
    program.leave(program.run(main))
