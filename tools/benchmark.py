"""Measures the speed of one part of the software and prints one JSON line for each figure.

python tools/benchmark.py data [--data_dir=DIR --sets=a,b] [--clips=2000] [--threads=2] [--workers=2]
python tools/benchmark.py mixing [--data_dir=DIR --sets=a,b] [--groups=64] [--devices=8] [--updates=300]
python tools/benchmark.py train [--model=base] [--rows=2 --seconds=10] [--dtype=bfloat16] [--step=update --micros=8]
                                [--against=transformers] [--breakdown] [--growth] [--profile=DIR] [--passes=3]
python tools/benchmark.py attention [--frames=50,150,500,1500] [--dtype=bfloat16] [--dropout=0.1] [--passes=3]
python tools/benchmark.py embed --input=DIR [--model=SRC] [--clips=32] [--order=shuffled] [--evaluate]
                                [--against=transformers] [--passes=3]
python tools/benchmark.py finetune [--model=tiny|base] [--folds=10] [--clips=96] [--dtype=bfloat16]
                                   [--against=transformers] [--passes=3]
python tools/benchmark.py soak [--steps=400000] [--every=1000] [--workers=0] [--folder=DIR]

`NAME --help` lists all flags of a benchmark. With --against, JAX does not reserve a GPU's memory in advance, so that
both programs fit.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import attention as attention_benchmark
from benchmarks import data as data_benchmark
from benchmarks import embed as embed_benchmark
from benchmarks import finetune as finetune_benchmark
from benchmarks import mixing as mixing_benchmark
from benchmarks import soak as soak_benchmark
from benchmarks import train as train_benchmark

from voc2vec_jax import errors
from voc2vec_jax.inference import pretrained
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.runs import cli, cpu_tuning, program, runtime


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand: its flags, and a function from the parsed arguments to its figures."""

    flags: dict[str, cli.Flag]
    figures: Callable[[cli.Arguments], Iterator[dict]]


def data(arguments: cli.Arguments) -> Iterator[dict]:
    """Speed of the input pipeline by itself."""
    return data_benchmark.figures(data_benchmark.DataBenchmark(**_with_sets(arguments, DATA_FLAGS)))


def _with_sets(arguments: cli.Arguments, flags: dict[str, cli.Flag]) -> dict[str, Any]:
    values = {name: getattr(arguments, name) for name in flags}
    values["sets"] = tuple(name for name in values["sets"].split(",") if name)
    if (values["data_dir"] is None) != (not values["sets"]):
        raise errors.InputError("--data_dir and --sets belong together: give both, or neither for made-up clips")
    return values


DATA_FLAGS = {
    "data_dir": cli.Flag("folder of prepared data sets; without it, noise is written and measured"),
    "sets": cli.Flag("data sets to read, separated by commas", default=""),
    "clips": cli.Flag("number of noise clips", default=2000, kind=int),
    "mean_seconds": cli.Flag("mean length of the noise clips, in seconds", default=4.0, kind=float),
    "groups": cli.Flag("loss groups in a step", default=1, kind=int),
    "group_rows": cli.Flag("rows of 10 s in a loss group", default=16, kind=int),
    "threads": cli.Flag("reader threads of the stream", default=2, kind=int),
    "workers": cli.Flag("reader processes of the stream", default=2, kind=int),
    "passes": cli.Flag("passes over the data; the median and the best are printed", default=3, kind=int),
}


def mixing(arguments: cli.Arguments) -> Iterator[dict]:
    """How well updates mix the data sets."""
    return mixing_benchmark.figures(mixing_benchmark.MixingBenchmark(**_with_sets(arguments, MIXING_FLAGS)))


MIXING_FLAGS = {
    "data_dir": cli.Flag("folder of prepared data sets; without it, clips like those of the paper's ten sets"),
    "sets": cli.Flag("data sets to plan for, separated by commas", default=""),
    "groups": cli.Flag("loss groups of 80 s in an update", default=64, kind=int),
    "devices": cli.Flag("devices that share an update", default=8, kind=int),
    "updates": cli.Flag("number of updates to plan", default=300, kind=int),
}


def embed(arguments: cli.Arguments) -> Iterator[dict]:
    """Speed from audio files to vectors."""
    values = {name: getattr(arguments, name) for name in EMBED_FLAGS}
    return embed_benchmark.figures(embed_benchmark.EmbedBenchmark(**values))


EMBED_FLAGS = {
    "input": cli.Flag("folder of audio files", required=True),
    "model": cli.Flag("model for from_pretrained; without it, base size with random weights"),
    "clips": cli.Flag("number of files, evenly spread over the folder; 0: all", default=0, kind=int),
    "against": cli.Flag("also measure this program on the same files", choices=("transformers",)),
    "batch_seconds": cli.Flag("seconds of audio in a batch; without it, the default of embed", kind=float),
    "dtype": cli.Flag("type to compute in", default="float32", choices=pretrained.DTYPES),
    "passes": cli.Flag("measurements of each program; the median counts", default=3, kind=int),
    "evaluate": cli.Flag("also measure batch evaluation, which writes Parquet files", default=False, kind=bool),
    "order": cli.Flag("order of the files, for every program", default="paths", choices=embed_benchmark.ORDERS),
}


def finetune(arguments: cli.Arguments) -> Iterator[dict]:
    """Speed of ten folds trained at once, against one after another."""
    values = {name: getattr(arguments, name) for name in FINETUNE_FLAGS}
    return finetune_benchmark.figures(finetune_benchmark.FinetuneBenchmark(**values))


FINETUNE_FLAGS = {
    "model": cli.Flag("architecture; its weights are random", default="tiny", choices=finetune_benchmark.MODELS),
    "folds": cli.Flag("number of folds", default=10, kind=int),
    "clips": cli.Flag("noise clips in each fold", default=96, kind=int),
    "least_seconds": cli.Flag("shortest clip, in seconds", default=1.0, kind=float),
    "most_seconds": cli.Flag("longest clip, in seconds", default=3.0, kind=float),
    "batch_clips": cli.Flag("clips in a batch", default=16, kind=int),
    "dtype": cli.Flag("type to compute in", default="float32", choices=("float32", "bfloat16")),
    "against": cli.Flag("also measure this program's folds, one after another", choices=("transformers",)),
    "passes": cli.Flag("measurements of each schedule; the median counts", default=3, kind=int),
}


def train(arguments: cli.Arguments) -> Iterator[dict]:
    """Speed of a pre-training step."""
    values = {name: getattr(arguments, name) for name in TRAIN_FLAGS}
    return train_benchmark.figures(train_benchmark.TrainBenchmark(**values))


TRAIN_FLAGS = {
    "model": cli.Flag("architecture; its weights are random", default="base", choices=train_benchmark.MODELS),
    "rows": cli.Flag("clips in a loss group", default=2, kind=int),
    "groups": cli.Flag("loss groups computed at once", default=1, kind=int),
    "micros": cli.Flag("times that the groups are accumulated in one update", default=1, kind=int),
    "seconds": cli.Flag("length of each clip, in seconds", default=10.0, kind=float),
    "dtype": cli.Flag("type to compute in", default="float32", choices=("float32", "bfloat16")),
    "step": cli.Flag(
        "forward and backward pass, or a whole update with the optimizer",
        default="gradient",
        choices=train_benchmark.STEPS,
    ),
    "remat": cli.Flag("what the backward pass recomputes", default="none", choices=tuple(encoders.REMAT)),
    "attention": cli.Flag(
        "implementation of attention; only auto and plain have attention dropout",
        default="auto",
        choices=attention_ops.IMPLEMENTATIONS,
    ),
    "against": cli.Flag("also measure this program's step, in turns", choices=("transformers",)),
    "breakdown": cli.Flag("also measure each part of the step", default=False, kind=bool),
    "growth": cli.Flag("also measure time and memory for more clips and longer clips", default=False, kind=bool),
    "profile": cli.Flag("folder to write a trace of a few steps to"),
    "passes": cli.Flag("measurements of each program; the median counts", default=3, kind=int),
}


def attention(arguments: cli.Arguments) -> Iterator[dict]:
    """Speed of each implementation of attention by itself."""
    values = {name: getattr(arguments, name) for name in ATTENTION_FLAGS}
    try:
        values["frames"] = tuple(int(number) for number in values["frames"].split(","))
    except ValueError as fault:
        raise errors.InputError(f"--frames={values['frames']}: give whole numbers with commas between them") from fault
    return attention_benchmark.figures(attention_benchmark.AttentionBenchmark(**values))


ATTENTION_FLAGS = {
    "frames": cli.Flag("lengths in frames, separated by commas", default="50,150,500,1000,1500"),
    "heads": cli.Flag("number of heads, of 64 channels each", default=12, kind=int),
    "total": cli.Flag("frames in all rows together; 0: by platform", default=0, kind=int),
    "dropout": cli.Flag("dropout of attention weights; only own has any", default=0.0, kind=float),
    "dtype": cli.Flag("type to compute in", default="float32", choices=pretrained.DTYPES),
    "passes": cli.Flag("measurements of each; the median counts", default=3, kind=int),
}


def soak(arguments: cli.Arguments) -> Iterator[dict]:
    """Memory, open files and time from step to step over a whole run of a tiny model."""
    values = {name: getattr(arguments, name) for name in SOAK_FLAGS}
    return soak_benchmark.figures(soak_benchmark.Soak(**values))


SOAK_FLAGS = {
    "steps": cli.Flag("updates of the run", default=400_000, kind=int),
    "intervals": cli.Flag("parts of the run that are compared", default=20, kind=int),
    "every": cli.Flag("steps between validations, and between checkpoints", default=1000, kind=int),
    "workers": cli.Flag("reading processes; 0 reads in threads", default=0, kind=int),
    "folder": cli.Flag("where to prepare the data and train; without it, in a temporary folder"),
}

PROCESS_FLAGS = {
    "deterministic": cli.Flag(
        "compute the same bits in every run, on a GPU too, as training does", default=True, kind=bool
    )
}

COMMANDS = {
    "train": Command(TRAIN_FLAGS, train),
    "data": Command(DATA_FLAGS, data),
    "mixing": Command(MIXING_FLAGS, mixing),
    "attention": Command(ATTENTION_FLAGS, attention),
    "embed": Command(EMBED_FLAGS, embed),
    "finetune": Command(FINETUNE_FLAGS, finetune),
    "soak": Command(SOAK_FLAGS, soak),
}


def main(argv: list[str]) -> None:
    """Runs the benchmark named by the first word of `argv`."""
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
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX starts
    for figure in command.figures(arguments):
        print(json.dumps({**figure, "deterministic": arguments.deterministic}), flush=True)


if __name__ == "__main__":
    sys.exit(program.run(main))
