"""`voc2vec convert` from a clone: `python tools/convert.py --help`."""

import sys

from voc2vec_jax.programs import convert
from voc2vec_jax.runs import program

if __name__ == "__main__":
    sys.exit(program.run(convert.main))
