"""Writes a model for another program to read."""

from pathlib import Path

from voc2vec_jax import errors
from voc2vec_jax.convert import onnx_file, reader, writer
from voc2vec_jax.runs import logs

FORMATS = ("hf", "fairseq", "jax", "onnx")
_FILES = {"fairseq": ".pt", "onnx": ".onnx"}  # formats that are one file


def save(checkpoint: reader.ModelWeights, target: Path, format: str) -> None:
    """As `Model.save_pretrained`."""
    if format not in FORMATS:
        raise errors.InputError(f"format {format!r} is none of {', '.join(FORMATS)}")
    writers = {"hf": writer.write_hf, "jax": writer.write_jax, "fairseq": writer.write_fairseq}
    writers |= {"onnx": onnx_file.write}
    if format in _FILES and target.suffix != _FILES[format]:
        target = target / f"model{_FILES[format]}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        dropped = writers[format](target, checkpoint)
    except OSError as fault:
        raise errors.InputError(f"{target} cannot be written: {fault.strerror or fault}") from fault
    if dropped:
        name, reason = next(iter(dropped.items()))
        more = f" and {len(dropped) - 1} more" if len(dropped) > 1 else ""
        logs.warn(f"not in {target}: {name}{more} ({reason})")
