"""Speed of one part of the software: one JSON line per figure.

python tools/benchmark.py data [--data_dir=DIR --sets=a,b] [--clips=2000] [--threads=2] [--workers=2]
python tools/benchmark.py train [--model=base] [--rows=2 --seconds=10] [--dtype=bfloat16] [--step=update --micros=8]
                                [--against=transformers] [--breakdown] [--growth] [--profile=DIR] [--passes=3]
python tools/benchmark.py attention [--frames=50,150,500,1500] [--dtype=bfloat16] [--dropout=0.1] [--passes=3]
python tools/benchmark.py embed --input=DIR [--model=SRC] [--clips=32] [--order=shuffled] [--evaluate]
                                [--against=transformers] [--passes=3]
python tools/benchmark.py finetune [--model=tiny|base] [--folds=10] [--clips=96] [--dtype=bfloat16]
                                   [--against=transformers] [--passes=3]

NAME --help tells all flags of one. With --against a GPU's memory is handed out as it is needed, for both sides.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator

from benchmarks import attention as attention_benchmark
from benchmarks import data as data_benchmark
from benchmarks import embed as embed_benchmark
from benchmarks import finetune as finetune_benchmark
from benchmarks import train as train_benchmark

from voc2vec_jax import errors
from voc2vec_jax.inference import pretrained
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.runs import cli, cpu_tuning, program, runtime


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
    return data_benchmark.figures(data_benchmark.DataBenchmark(**values))


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
    return embed_benchmark.figures(embed_benchmark.EmbedBenchmark(**values))


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
    return finetune_benchmark.figures(finetune_benchmark.FinetuneBenchmark(**values))


FINETUNE_FLAGS = {
    "model": cli.Flag("architecture, random weights", default="tiny", choices=finetune_benchmark.MODELS),
    "folds": cli.Flag("folds that are trained", default=10, kind=int),
    "clips": cli.Flag("clips of noise of each fold", default=96, kind=int),
    "least_seconds": cli.Flag("of a clip", default=1.0, kind=float),
    "most_seconds": cli.Flag("of a clip", default=3.0, kind=float),
    "batch_clips": cli.Flag("clips in a batch", default=16, kind=int),
    "dtype": cli.Flag("of the computation", default="float32", choices=("float32", "bfloat16")),
    "against": cli.Flag("measure its folds, one after another, too", choices=("transformers",)),
    "passes": cli.Flag("turns of each way; the median counts", default=3, kind=int),
}


def train(arguments: cli.Arguments) -> Iterator[dict]:
    """A pre-training step."""
    values = {name: getattr(arguments, name) for name in TRAIN_FLAGS}
    return train_benchmark.figures(train_benchmark.TrainBenchmark(**values))


TRAIN_FLAGS = {
    "model": cli.Flag("architecture, random weights", default="base", choices=train_benchmark.MODELS),
    "rows": cli.Flag("clips in a loss group", default=2, kind=int),
    "groups": cli.Flag("loss groups at once", default=1, kind=int),
    "micros": cli.Flag("times that so many are accumulated in an update", default=1, kind=int),
    "seconds": cli.Flag("of each clip", default=10.0, kind=float),
    "dtype": cli.Flag("of the computation", default="float32", choices=("float32", "bfloat16")),
    "step": cli.Flag("forward and backward, or the optimizer too", default="gradient", choices=train_benchmark.STEPS),
    "remat": cli.Flag("what the backward pass recomputes", default="none", choices=tuple(encoders.REMAT)),
    "attention": cli.Flag("other than own: without its dropout", default="own", choices=attention_ops.IMPLEMENTATIONS),
    "against": cli.Flag("measure its step too, in turns", choices=("transformers",)),
    "breakdown": cli.Flag("time of each part", default=False, kind=bool),
    "growth": cli.Flag("time and memory for more and longer clips", default=False, kind=bool),
    "profile": cli.Flag("folder for a trace of some steps"),
    "passes": cli.Flag("turns of each side; the median counts", default=3, kind=int),
}


def attention(arguments: cli.Arguments) -> Iterator[dict]:
    """Implementations of attention alone."""
    values = {name: getattr(arguments, name) for name in ATTENTION_FLAGS}
    try:
        values["frames"] = tuple(int(number) for number in values["frames"].split(","))
    except ValueError as fault:
        raise errors.InputError(f"--frames={values['frames']}: give whole numbers with commas between them") from fault
    return attention_benchmark.figures(attention_benchmark.AttentionBenchmark(**values))


ATTENTION_FLAGS = {
    "frames": cli.Flag("lengths, separated by commas", default="50,150,500,1000,1500"),
    "heads": cli.Flag("of 64 channels", default=12, kind=int),
    "total": cli.Flag("frames of all rows together; 0: by platform", default=0, kind=int),
    "dropout": cli.Flag("of the weights; other implementations than own have none", default=0.0, kind=float),
    "dtype": cli.Flag("of the computation", default="float32", choices=pretrained.DTYPES),
    "passes": cli.Flag("turns of each; the median counts", default=3, kind=int),
}

PROCESS_FLAGS = {
    "deterministic": cli.Flag("the same bits in every run, on a GPU too, as training has it", default=True, kind=bool)
}

COMMANDS = {
    "train": Command(TRAIN_FLAGS, train),
    "data": Command(DATA_FLAGS, data),
    "attention": Command(ATTENTION_FLAGS, attention),
    "embed": Command(EMBED_FLAGS, embed),
    "finetune": Command(FINETUNE_FLAGS, finetune),
}


def main(argv: list[str]) -> None:
    """Runs the subcommand that `argv` begins with."""
    cpu_tuning.keep_memory()
    name = argv[0] if argv else ""
    if name in ("--help", "-h"):
        print(__doc__.strip())
        return
    if name not in COMMANDS:
        raise errors.InputError(f"benchmark {name!r} is not one of {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    flags = {**command.flags, **PROCESS_FLAGS}
    arguments = cli.parse(argv[1:], flags=flags, program=f"tools/benchmark.py {name}")
    if arguments.deterministic:
        runtime.compute_deterministically()
    if arguments.values.get("against"):
        runtime.share_device_memory()
    for figure in command.figures(arguments):
        print(json.dumps({**figure, "deterministic": arguments.deterministic}), flush=True)


if __name__ == "__main__":
    sys.exit(program.run(main))
