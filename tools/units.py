"""`voc2vec units` from a clone: `python tools/units.py --help`."""

import sys

from voc2vec_jax.programs import units
from voc2vec_jax.runs import program

if __name__ == "__main__":
    sys.exit(program.run(units.main))
