"""Vectors of recordings, in one table.

    voc2vec embed laugh.wav cry.mp3 --model=voc2vec-ls --output=vectors.csv
    voc2vec embed CLIPS --model=runs/quickstart --output=vectors.parquet      a folder, searched to its bottom

`voc2vec evaluate` does the same for any number of recordings, on any number of machines, and can be interrupted.
"""

from voc2vec_jax import errors
from voc2vec_jax.runs import cli

FLAGS = {
    "model": cli.Flag("a system of the paper, a Hub id, a folder, a file or a run folder", required=True),
    "output": cli.Flag("the table to write: .csv, .parquet or .npz", required=True),
}
WORDS = cli.Positional("RECORDING", "audio files and folders of them")


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    cli.parse(argv, flags=FLAGS, program="voc2vec embed", positional=WORDS, about=__doc__)
    return errors.EXIT_DONE
