"""How pre-training scales to 1,024 devices, on paper: `python tools/scaling.py [--device=h200] [--fsdp=1]`.

Prints the tables of tools/cluster/README.md; voc2vec_jax/scaling.py says what is assumed.
"""

import sys

from voc2vec_jax import errors, scaling
from voc2vec_jax.runs import cli

FLAGS = {
    "device": cli.Flag("accelerator", default="h200", choices=tuple(scaling.DEVICES)),
    "fsdp": cli.Flag("devices that share one copy of the parameters", default=1, kind=int),
}


def main(argv: list[str]) -> int:
    """Prints one table."""
    arguments = cli.parse(argv, flags=FLAGS, program="python tools/scaling.py")
    if arguments.fsdp < 1 or any(count % min(arguments.fsdp, count) for count in scaling.COUNTS):
        raise errors.InputError(
            f"--fsdp={arguments.fsdp} does not divide {', '.join(map(str, scaling.COUNTS))} devices"
        )
    print(*scaling.table(scaling.DEVICES[arguments.device], arguments.fsdp), sep="\n")
    return errors.EXIT_DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
