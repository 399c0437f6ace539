"""Draw a timeline again, without the model: events by other rules, label files, pictures and pages.

voc2vec evaluate --timeline --model=RUN --input=night.wav --output=OUT    computes it, and draws it once
voc2vec timeline OUT --threshold=0.7 --gap_seconds=2                      draws it again
"""

import pathlib

from voc2vec_jax import errors
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.timelines import drawing
from voc2vec_jax.inference.timelines import flags as timeline_flags
from voc2vec_jax.runs import cli, logs

FLAGS = {
    "input": cli.Flag("where the recordings are, if not where they were"),
    "data_dir": cli.Flag("folder of prepared sets, if the recordings were some"),
    **timeline_flags.FLAGS,
}
WORDS = cli.Positional("OUT", "the output folder of evaluate --timeline", most=1)


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec timeline", positional=WORDS, about=__doc__)
    rules, wanted = timeline_flags.read(arguments)
    output = drawing.opened(pathlib.Path(arguments.words[0]))
    items = evaluation_inputs.open_input(arguments.input or output.description["input"], arguments.data_dir)
    logs.say(drawing.draw(output, items, rules, wanted, drawing.reading_of(output)))
    return errors.EXIT_DONE
