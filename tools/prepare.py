"""`voc2vec prepare` from a clone: `python tools/prepare.py --help`."""

import sys

from voc2vec_jax.programs import prepare
from voc2vec_jax.runs import program

if __name__ == "__main__":
    sys.exit(program.run(prepare.main))
