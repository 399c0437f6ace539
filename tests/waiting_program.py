"""A process that waits in a barrier for one that dies as late after the runtime's heartbeat as may be."""

import os
import signal
import sys
import time

from voc2vec_jax import agreement, cli, distributed, liveness


def main(argv):
    distributed.join(cli.parse(argv, flags=distributed.FLAGS, program="waiting_program"))
    if agreement.index():
        time.sleep(liveness.HEARTBEAT_SECONDS / 2 - 1)
        os.kill(os.getpid(), signal.SIGKILL)
    agreement.wait_for_all()


if __name__ == "__main__":
    sys.exit(distributed.run(main))
