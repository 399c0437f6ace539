"""Writes a model for another program to read."""

from pathlib import Path

from voc2vec_jax import errors
from voc2vec_jax.convert import reader, writer
from voc2vec_jax.runs import logs

FORMATS = ("hf", "fairseq", "jax")


def save(checkpoint: reader.ModelWeights, target: Path, format: str) -> None:
    """As `Model.save_pretrained`."""
    if format not in FORMATS:
        raise errors.InputError(f"format {format!r} is none of {', '.join(FORMATS)}")
    writers = {"hf": writer.write_hf, "jax": writer.write_jax, "fairseq": writer.write_fairseq}
    if format == "fairseq" and target.suffix != ".pt":
        target = target / "model.pt"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        dropped = writers[format](target, checkpoint)
    except OSError as fault:
        raise errors.InputError(f"{target} cannot be written: {fault.strerror or fault}") from fault
    if dropped:
        name, reason = next(iter(dropped.items()))
        more = f" and {len(dropped) - 1} more" if len(dropped) > 1 else ""
        logs.warn(f"not in {target}: {name}{more} ({reason})")
