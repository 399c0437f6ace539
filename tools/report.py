"""`voc2vec report` from a clone: `python tools/report.py --help`."""

import sys

from voc2vec_jax.programs import report
from voc2vec_jax.runs import program

if __name__ == "__main__":
    sys.exit(program.run(report.main))
