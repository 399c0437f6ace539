"""Batch evaluation: `python -m voc2vec_jax.evaluate --model=SRC --input=FOLDER|MANIFEST|SET --output=DIR`."""

import os
import sys
from typing import Any

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.inference import pretrained
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.inference.evaluation import scores as evaluation_scores
from voc2vec_jax.inference.evaluation import shard_assignment, worker
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.ops import metrics
from voc2vec_jax.runs import cli, cpu_tuning, logs, program, runtime

FLAGS = {
    "model": cli.Flag("as from_pretrained takes it: Hub id, folder, file or run folder", required=True),
    "input": cli.Flag("folder of audio, manifest (csv with a column path; a path a line), file, or set", required=True),
    "output": cli.Flag("folder for the results; a rerun with the same one goes on", required=True),
    "data_dir": cli.Flag("folder of prepared sets: --input then names one of them, or several with commas"),
    "shard": cli.Flag(
        "i/n: the i-th of n shares; auto: as SLURM or Kubernetes numbers this task", default=shard_assignment.AUTO
    ),
    "layers": cli.Flag("numbers with commas, or all; -1: the last", default="-1"),
    "pool": cli.Flag("over frames; none: every frame", default="mean", choices=("mean", "max", "first", "none")),
    "predict": cli.Flag("class probabilities instead of vectors", default=False, kind=bool),
    "timeline": cli.Flag("class probabilities of sliding windows, and csv timelines", default=False, kind=bool),
    "window_seconds": cli.Flag("longest stretch computed at once: 30, of a timeline 4", default=0.0, kind=float),
    "hop_seconds": cli.Flag("from one window of a timeline to the next; half a window", default=0.0, kind=float),
    "dtype": cli.Flag("of the computation", default="float32", choices=pretrained.DTYPES),
    "attention": cli.Flag("how it is computed", default="own", choices=attention_ops.IMPLEMENTATIONS),
    "store_dtype": cli.Flag("of the vectors in the files", default="float32", choices=("float32", "float16")),
    "batch_seconds": cli.Flag("audio computed at once on a device; by platform", default=0.0, kind=float),
    "part_files": cli.Flag("files in a part; by the length of the list", default=0, kind=int),
    "threads": cli.Flag("that read and resample", default=worker.THREADS, kind=int),
    "deterministic": cli.Flag("the same bits from every worker, on a GPU too", default=True, kind=bool),
}


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    cpu_tuning.keep_memory()
    arguments = cli.parse(argv, flags=FLAGS, program="python -m voc2vec_jax.evaluate")
    share = shard_assignment.find(arguments.shard, os.environ)
    settings = settings_of(arguments)
    runtime.set_up_jax(
        ml_collections.ConfigDict({"deterministic": arguments.deterministic, "matmul_precision": "default"})
    )
    items = evaluation_inputs.open_input(arguments.input, arguments.data_dir)
    model = pretrained.from_pretrained(arguments.model, dtype=arguments.dtype, attention=arguments.attention)
    output = evaluation_output.OutputFolder(arguments.output, worker.describe(model, items, settings))
    numbers = share_of(output, share)
    logs.say(f"{len(items):,} recordings in {output.parts:,} parts, {share}: {len(numbers):,} parts to do")
    if numbers:
        report(worker.Worker(model, items, output, settings).run(numbers))
    return conclude(output)


def settings_of(arguments: cli.Arguments) -> worker.EvaluationSettings:
    """The flags that say what is computed."""
    if arguments.predict and arguments.timeline:
        raise errors.InputError("--predict and --timeline exclude each other: give one of them")
    names = ("pool", "window_seconds", "hop_seconds", "batch_seconds", "part_files", "store_dtype", "threads")
    return worker.EvaluationSettings(
        kind="timeline" if arguments.timeline else "probabilities" if arguments.predict else "embeddings",
        layers=layers_of(arguments.layers),
        **{name: getattr(arguments, name) for name in names},
    )


def layers_of(text: str) -> Any:
    """Numbers with commas between them as a list, "all" as it is."""
    if text == "all":
        return text
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise errors.InputError(f"--layers={text} is neither numbers with commas nor all") from None


def share_of(output: evaluation_output.OutputFolder, share: shard_assignment.Shard) -> list[int]:
    """The parts of a share that are not done: every n-th part."""
    return [number for number in output.missing() if number % share.count == share.index]


def report(tally: worker.Tally) -> None:
    """Says what this worker did, and how fast."""
    rate = tally.audio_seconds / max(tally.seconds, 1e-9)
    logs.say(
        f"{tally.items:,} recordings ({tally.unusable:,} unusable) in {tally.parts:,} parts, "
        f"{tally.audio_seconds:,.0f} s of audio in {tally.seconds:,.1f} s: {rate:,.0f} audio seconds per second; "
        f"{tally.compilations} shapes compiled (of at most {tally.shapes})"
    )


def conclude(output: evaluation_output.OutputFolder) -> int:
    """Ends the evaluation if all parts are there; the exit status."""
    found = evaluation_scores.finish(output)
    if found is None:
        missing = output.missing()
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        logs.say(f"{len(missing):,} of {output.parts:,} parts are left to other shares ({shown})")
        return errors.EXIT_DONE
    if not found["rows"]:
        raise errors.InputError(
            f"none of the {found['unusable']:,} recordings can be used: see {output.root}/errors.csv"
        )
    if "metrics" in found:
        scores = ", ".join(f"{name} {found['metrics'][name]:.4f}" for name in metrics.NAMES)
        logs.say(f"{scores} over {found['metrics']['clips']:,} labelled recordings")
    unusable = f"{found['unusable']:,} could not be used (errors.csv)" if found["unusable"] else "none was unreadable"
    logs.say(f"{output.root} is complete: {found['rows']:,} rows in {output.root / 'parts'}; {unusable}")
    return errors.EXIT_DONE


if __name__ == "__main__":
    sys.exit(program.run(main))
