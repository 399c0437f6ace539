"""Puts a fine-tuned model on the Hub, with a card that tells data, licence and scores of its run.

    voc2vec publish RUN me/cries --output=FOLDER             writes the folder to look at, and uploads nothing
    voc2vec publish RUN me/cries --licence=cc-by-nc-4.0      uploads it

RUN is a run of fine-tuning that has kept one model, or one of its models. A licence is named as the Hub names it.
"""

from voc2vec_jax import errors, printable
from voc2vec_jax.reports import model_card
from voc2vec_jax.runs import cli

FLAGS = {
    "licence": cli.Flag("of the model, as the Hub names it: apache-2.0, cc-by-nc-4.0 ...", default=""),
    "private": cli.Flag("make a repository that only you see", default=False, kind=bool),
    "output": cli.Flag("a new folder to write, in place of an upload", default=""),
}
WORDS = cli.Positional("RUN OWNER/NAME", "the run or its model; the repository on the Hub", least=2, most=2)


def main(argv: list[str]) -> int:
    """Writes a folder, uploads it, says where it is."""
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec publish", positional=WORDS, about=__doc__)
    source, repository = arguments.words
    how = {"licence": arguments.licence, "private": arguments.private, "output": arguments.output or None}
    said = model_card.publish(source, repository, **how)
    if arguments.output:
        said = f"{arguments.output} holds what would be uploaded, in the layout {said}: read its README.md first"
    printable.show(said)
    return errors.EXIT_DONE
