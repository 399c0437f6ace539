"""`voc2vec verify` from a clone: `python tools/verify.py --help`."""

import sys

from voc2vec_jax.programs import verify
from voc2vec_jax.runs import program

if __name__ == "__main__":
    sys.exit(program.run(verify.main))
