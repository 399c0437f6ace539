"""Writes a model as an ONNX file, for programs without JAX and Python, and checks it.

    voc2vec export RUN model.onnx
    voc2vec export voc2vec-ls encoder.onnx      without a head: features alone

The file takes a batch of audio and the length of each row, and gives probabilities, embeddings and frames. Its
metadata hold the labels and the sampling rate. What it takes and gives is described in voc2vec_jax/convert/onnx_file.py
and in the file itself (`doc_string`).
"""

from pathlib import Path

from voc2vec_jax import errors, printable
from voc2vec_jax.inference import exported, pretrained
from voc2vec_jax.runs import cli

FLAGS = {
    "verify": cli.Flag("compare the file's outputs of a padded batch with the model's", default=True, kind=bool),
}
WORDS = cli.Positional("MODEL FILE", "a model or run folder; the .onnx file to write", least=2, most=2)


def main(argv: list[str]) -> int:
    """Writes, verifies, prints a summary."""
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec export", positional=WORDS, about=__doc__)
    source, path = arguments.words[0], Path(arguments.words[1])
    if path.suffix != ".onnx":
        raise errors.InputError(f"{path} is to be an ONNX file: give it a name that ends in .onnx")
    if path.exists():
        raise errors.InputError(f"{path} already exists; remove it or choose another name")
    model = pretrained.from_pretrained(source, "float32")
    model.save_pretrained(path, "onnx")
    beside = path.with_name(f"{path.name}.data")
    size = sum(each.stat().st_size for each in (path, beside) if each.exists())
    printable.show(
        f"{source} -> {path} ({size / 1e6:,.1f} MB{', most of it in ' + beside.name if beside.exists() else ''})"
    )
    printable.show(f"family       {model.family}, {model.checkpoint.parameters:,} parameters")
    labels = printable.line(", ".join(model.labels))
    printable.show(f"labels       {labels or 'none: the model has no head, the file gives features'}")
    printable.show(
        "input        audio [batch, samples] at 16 kHz within [-1, 1], not normalised; lengths [batch] in samples"
    )
    if arguments.verify:
        printable.show(verdict(model, path))
    return errors.EXIT_DONE


def verdict(model: pretrained.Model, path: Path) -> str:
    """One line on the check; RunError for a file that computes something else."""
    found = exported.difference(model, path)
    if not found <= exported.TOLERANCE:
        raise errors.RunError(f"{path} does not compute what the model computes, off by {found:.1e}; do not use it")
    return f"verified     a padded batch of 3 clips by onnxruntime, within {found:.1e} of the model"
