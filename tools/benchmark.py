"""Speed of one part of the software: one JSON line per figure.

python tools/benchmark.py data [--data_dir=DIR --sets=a,b] [--clips=2000] [--threads=2] [--workers=2]
python tools/benchmark.py embed --input=DIR [--model=SRC] [--clips=32] [--against=transformers] [--passes=3]
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator

from voc2vec_jax import cli, data_benchmark, embed_benchmark, errors, pretrained


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand: its flags and the figures it yields from the parsed arguments."""

    flags: dict[str, cli.Flag]
    figures: Callable[[cli.Arguments], Iterator[dict]]


def data(arguments: cli.Arguments) -> Iterator[dict]:
    """The input pipeline alone."""
    values = {name: getattr(arguments, name) for name in DATA_FLAGS}
    values["sets"] = tuple(name for name in values["sets"].split(",") if name)
    if (values["data_dir"] is None) != (not values["sets"]):
        raise errors.InputError("--data_dir and --sets belong together: give both, or neither to measure noise")
    return data_benchmark.figures(data_benchmark.Settings(**values))


DATA_FLAGS = {
    "data_dir": cli.Flag("folder of prepared sets; without it noise is written and measured"),
    "sets": cli.Flag("prepared sets to read, separated by commas", default=""),
    "clips": cli.Flag("clips of noise", default=2000, kind=int),
    "mean_seconds": cli.Flag("mean length of the noise clips", default=4.0, kind=float),
    "groups": cli.Flag("loss groups in a step", default=1, kind=int),
    "group_rows": cli.Flag("10 s rows in a loss group", default=16, kind=int),
    "threads": cli.Flag("reading threads of the stream", default=2, kind=int),
    "workers": cli.Flag("reading processes of the stream", default=2, kind=int),
    "passes": cli.Flag("passes over the data; the best and the median are shown", default=3, kind=int),
}


def embed(arguments: cli.Arguments) -> Iterator[dict]:
    """Files to vectors."""
    values = {name: getattr(arguments, name) for name in EMBED_FLAGS}
    return embed_benchmark.figures(embed_benchmark.Settings(**values))


EMBED_FLAGS = {
    "input": cli.Flag("folder of audio files", required=True),
    "model": cli.Flag("as from_pretrained takes it; without it base size with random weights"),
    "clips": cli.Flag("files to take, evenly spread; 0: all", default=0, kind=int),
    "against": cli.Flag("measure it on the same files too", choices=("transformers",)),
    "batch_seconds": cli.Flag("audio that is computed at once; without it the default of embed", kind=float),
    "dtype": cli.Flag("of the computation", default="float32", choices=pretrained.DTYPES),
    "passes": cli.Flag("turns of each side; the best counts", default=3, kind=int),
}

COMMANDS = {"data": Command(DATA_FLAGS, data), "embed": Command(EMBED_FLAGS, embed)}


def main(argv: list[str]) -> None:
    """Runs the subcommand that `argv` begins with."""
    name = argv[0] if argv else ""
    if name not in COMMANDS:
        raise errors.InputError(f"benchmark {name!r} is not one of {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    arguments = cli.parse(argv[1:], flags=command.flags, program=f"tools/benchmark.py {name}")
    for figure in command.figures(arguments):
        print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
