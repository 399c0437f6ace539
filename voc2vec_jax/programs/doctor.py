"""What is installed, which devices JAX sees, what is missing, and the command that mends it.

voc2vec doctor
"""

from voc2vec_jax import errors
from voc2vec_jax.runs import cli, versions


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    cli.parse(argv, flags={}, program="voc2vec doctor", about=__doc__)
    print(versions.line())
    return errors.EXIT_DONE
