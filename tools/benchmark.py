"""Speed of one part of the software: one JSON line per figure.

python tools/benchmark.py data [--data_dir=DIR --sets=a,b] [--clips=2000] [--threads=2] [--workers=2]
python tools/benchmark.py train [--model=base] [--rows=2 --seconds=10] [--dtype=bfloat16] [--step=update]
                                [--against=transformers] [--breakdown] [--growth] [--profile=DIR] [--passes=3]
python tools/benchmark.py embed --input=DIR [--model=SRC] [--clips=32] [--order=shuffled] [--evaluate]
                                [--against=transformers] [--passes=3]
python tools/benchmark.py finetune [--model=tiny|base] [--folds=10] [--clips=96] [--dtype=bfloat16] [--passes=3]
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator

from voc2vec_jax import (
    cli,
    data_benchmark,
    embed_benchmark,
    errors,
    finetune_benchmark,
    pretrained,
    runtime,
    train_benchmark,
)


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
    "passes": cli.Flag("turns of each side; the median counts", default=3, kind=int),
    "evaluate": cli.Flag("batch evaluation too, Parquet files written", default=False, kind=bool),
    "order": cli.Flag("of the files, for all sides", default="paths", choices=embed_benchmark.ORDERS),
}


def finetune(arguments: cli.Arguments) -> Iterator[dict]:
    """Ten folds at once against one after another."""
    values = {name: getattr(arguments, name) for name in FINETUNE_FLAGS}
    return finetune_benchmark.figures(finetune_benchmark.Settings(**values))


FINETUNE_FLAGS = {
    "model": cli.Flag("architecture, random weights", default="tiny", choices=finetune_benchmark.MODELS),
    "folds": cli.Flag("folds that are trained", default=10, kind=int),
    "clips": cli.Flag("clips of noise of each fold", default=96, kind=int),
    "least_seconds": cli.Flag("of a clip", default=1.0, kind=float),
    "most_seconds": cli.Flag("of a clip", default=3.0, kind=float),
    "batch_clips": cli.Flag("clips in a batch", default=16, kind=int),
    "dtype": cli.Flag("of the computation", default="float32", choices=("float32", "bfloat16")),
    "passes": cli.Flag("turns of each way; the median counts", default=3, kind=int),
}


def train(arguments: cli.Arguments) -> Iterator[dict]:
    """A pre-training step."""
    values = {name: getattr(arguments, name) for name in TRAIN_FLAGS}
    return train_benchmark.figures(train_benchmark.Settings(**values))


TRAIN_FLAGS = {
    "model": cli.Flag("architecture, random weights", default="base", choices=train_benchmark.MODELS),
    "rows": cli.Flag("clips in the step", default=2, kind=int),
    "seconds": cli.Flag("of each clip", default=10.0, kind=float),
    "dtype": cli.Flag("of the computation", default="float32", choices=("float32", "bfloat16")),
    "step": cli.Flag("forward and backward, or the optimizer too", default="gradient", choices=train_benchmark.STEPS),
    "remat": cli.Flag("what the backward pass recomputes", default="none", choices=("none", "layer")),
    "against": cli.Flag("measure its step too, in turns", choices=("transformers",)),
    "breakdown": cli.Flag("time of each part", default=False, kind=bool),
    "growth": cli.Flag("time and memory for more and longer clips", default=False, kind=bool),
    "profile": cli.Flag("folder for a trace of some steps"),
    "passes": cli.Flag("turns of each side; the median counts", default=3, kind=int),
}

COMMANDS = {
    "train": Command(TRAIN_FLAGS, train),
    "data": Command(DATA_FLAGS, data),
    "embed": Command(EMBED_FLAGS, embed),
    "finetune": Command(FINETUNE_FLAGS, finetune),
}


def main(argv: list[str]) -> None:
    """Runs the subcommand that `argv` begins with."""
    runtime.keep_memory()
    name = argv[0] if argv else ""
    if name not in COMMANDS:
        raise errors.InputError(f"benchmark {name!r} is not one of {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    arguments = cli.parse(argv[1:], flags=command.flags, program=f"tools/benchmark.py {name}")
    for figure in command.figures(arguments):
        print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
