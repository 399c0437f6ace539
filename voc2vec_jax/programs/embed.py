"""Vectors of recordings, in one table: a row for each, with its class where folders are classes.

    voc2vec embed laugh.wav cry.mp3 --model=voc2vec-ls --output=vectors.csv
    voc2vec embed CLIPS --model=runs/quickstart --output=vectors.parquet      a folder, searched to its bottom

`voc2vec evaluate` does the same for any number of recordings, on any number of machines, and can be interrupted.
"""

import pathlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from voc2vec_jax import errors
from voc2vec_jax.datasets import audio_flags, shard_jobs
from voc2vec_jax.inference import batching, pretrained, vector_files
from voc2vec_jax.inference.evaluation import inputs
from voc2vec_jax.runs import cli, cpu_tuning, files, logs

FLAGS = {
    "model": cli.Flag("a system, Hub id, folder, file or run folder", required=True, shown="voc2vec-ls"),
    "output": cli.Flag("the table to write: .csv, .parquet or .npz", required=True, shown="vectors.csv"),
    "pool": cli.Flag("how frames are pooled", default="mean", choices=tuple(filter(None, batching.POOLS))),
    "layer": cli.Flag("whose frames: -1 is the last layer, 0 what enters the first block", default=-1, kind=int),
    "dtype": cli.Flag("type of the computation; auto: bfloat16 off CPUs", default="auto", choices=pretrained.DTYPES),
    **audio_flags.FLAGS,
}
WORDS = cli.Positional("RECORDING", "audio files and folders of them")
_LISTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")


def main(argv: list[str]) -> int:
    """Compute, write, say what was left out."""
    cpu_tuning.keep_memory()
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec embed", positional=WORDS, about=__doc__)
    output = pathlib.Path(arguments.output)
    vector_files.check_target(output)
    found = list(recordings(arguments.words))
    model = pretrained.from_pretrained(arguments.model, arguments.dtype)
    vectors = model.embed(
        [path for path, _ in found],
        arguments.pool,
        arguments.layer,
        on_unreadable="skip",
        progress=True,
        how=audio_flags.reading_of(arguments),
    )
    used = np.flatnonzero(np.isfinite(vectors).all(1))
    if not len(used):
        raise errors.InputError("none of the recordings can be used, so there is no table: see the warnings above")
    names, labels = ([found[k][at] and shard_jobs.stored_name(found[k][at]) for k in used] for at in (0, 1))
    columns = {"file": names, "label": labels}
    if not any(columns["label"]):
        del columns["label"]
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    vector_files.write(output, table, vectors[used])
    left_out = f"; {len(found) - len(used):,} left out" if len(used) < len(found) else ""
    logs.say(f"{output}: {errors.counted(len(used), 'recording')}, vectors of {vectors.shape[1]:,} numbers{left_out}")
    return errors.EXIT_DONE


def recordings(words: Iterable[str]) -> Iterable[tuple[str, str | None]]:
    """(path, class or None) of each recording that files and folders stand for; InputError for anything else."""
    for word in words:
        path = pathlib.Path(word)
        if path.is_dir():
            items = inputs.open_input(word)
            yield from ((str(items.file(item)), item.label) for item in items.rows(0, len(items)))
        elif word.startswith(("http://", "https://")):
            yield word, None
        elif not path.exists():
            raise errors.InputError(f"there is no file or folder {word}{files.similar(path)}")
        elif path.suffix.lower() in _LISTS:
            raise errors.InputError(f"{word} is no recording: `voc2vec evaluate --input={word}` reads lists")
        else:
            yield word, None
