"""The flags of `evaluate`, and the settings that they ask for."""

from typing import Any

from voc2vec_jax import errors
from voc2vec_jax.datasets import audio_flags
from voc2vec_jax.inference import pretrained
from voc2vec_jax.inference.evaluation import shard_assignment, worker
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.planning import report
from voc2vec_jax.runs import cli

FLAGS = {
    "model": cli.Flag(
        "a Hub id, folder, file or run folder, as from_pretrained takes it", required=True, shown="voc2vec-ls"
    ),
    "input": cli.Flag(
        "an audio file, a folder of them, a list (csv with a column path, or a path a line), label files "
        "(FOLDER/*.TextGrid), or a prepared set",
        required=True,
        shown="CLIPS",
    ),
    "output": cli.Flag(
        "folder for the results; run again with the same folder to continue", required=True, shown="FOLDER"
    ),
    "data_dir": cli.Flag("folder of prepared sets; --input then names one set, or several separated by commas"),
    "shard": cli.Flag(
        "i/n computes the i-th of n shards; auto takes the number that SLURM or Kubernetes gives this task",
        default=shard_assignment.AUTO,
    ),
    "layers": cli.Flag("layer numbers separated by commas, or all; -1 is the last layer", default="-1"),
    "pool": cli.Flag(
        "how frames are pooled; none keeps every frame", default="mean", choices=("mean", "max", "first", "none")
    ),
    "predict": cli.Flag("write class probabilities instead of vectors", default=False, kind=bool),
    "timeline": cli.Flag("write class probabilities of sliding windows, and csv timelines", default=False, kind=bool),
    "window_seconds": cli.Flag("longest window; 0 means 30, or 4 for a timeline", default=0.0, kind=float),
    "hop_seconds": cli.Flag("hop between the windows of a timeline; 0 means half a window", default=0.0, kind=float),
    "dtype": cli.Flag("type of the computation; auto: bfloat16 off CPUs", default="auto", choices=pretrained.DTYPES),
    "attention": cli.Flag("implementation of attention", default="auto", choices=attention_ops.IMPLEMENTATIONS),
    "context": cli.Flag("Whisper: a clip padded to 30 s, or cut", default="auto", choices=pretrained.CONTEXTS),
    "store_dtype": cli.Flag("type of the stored vectors", default="float32", choices=("float32", "float16")),
    "batch_seconds": cli.Flag("audio per batch and device; 0 chooses by platform", default=0.0, kind=float),
    "part_files": cli.Flag("recordings per part; 0 chooses by the length of the list", default=0, kind=int),
    "threads": cli.Flag("threads that read and resample", default=worker.THREADS, kind=int),
    "retry": cli.Flag("try every recording again that could not be used", default=False, kind=bool),
    **audio_flags.FLAGS,
    "deterministic": cli.Flag(
        "the same bits from every worker on a GPU too, where it costs speed", default=False, kind=bool
    ),
    **report.FLAGS,
}


def settings_of(arguments: cli.Arguments) -> worker.EvaluationSettings:
    """The settings that the command line asks for; InputError for flags that exclude each other."""
    if arguments.predict and arguments.timeline:
        raise errors.InputError("--predict and --timeline exclude each other: give one of them")
    names = ("pool", "window_seconds", "hop_seconds", "batch_seconds", "part_files", "store_dtype", "threads")
    return worker.EvaluationSettings(
        kind="timeline" if arguments.timeline else "probabilities" if arguments.predict else "embeddings",
        layers=layers_of(arguments.layers),
        how=audio_flags.reading_of(arguments),
        **{name: getattr(arguments, name) for name in names},
    )


def layers_of(text: str) -> Any:
    """Numbers separated by commas as a list; "all" as it is."""
    if text == "all":
        return text
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise errors.InputError(f"--layers={text} is neither numbers with commas nor all") from None
