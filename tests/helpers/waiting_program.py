"""Processes that wait in a barrier for one that dies: as it joins, or (`--late`) just before its next heartbeat."""

import os
import signal
import sys
import time

from voc2vec_jax.runs import agreement, cli, distributed, liveness

FLAGS = {"late": cli.Flag("die late", default=False, kind=bool), **distributed.FLAGS}


def main(argv):
    arguments = cli.parse(argv, flags=FLAGS, program="waiting_program")
    distributed.join(arguments)
    if agreement.process_index():
        time.sleep(arguments.late and liveness.HEARTBEAT_SECONDS / 2 - 1)
        os.kill(os.getpid(), signal.SIGKILL)
    agreement.wait_for_all()


if __name__ == "__main__":
    sys.exit(distributed.run(main))
