"""Adapters beside their source: a folder of some megabytes that holds what a fold trained, and the source's name.

config.json          the source, a digest of its encoder, the adapters' rank, alpha and targets, the labels
model.safetensors    adapters and head, and whatever else was trained
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import configs, fields, reader, weight_files, writer
from voc2vec_jax.convert import digest as convert_digest
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.models import lora

FORMAT = "voc2vec_jax_adapters"
_LONGEST, _LONGEST_SHOWN = 4096, 160  # characters of a source's name
_TARGETS = ", ".join(lora.TARGETS)


def fingerprint(weights: reader.ModelWeights) -> str:
    """SHA-256 of a source's encoder."""
    return convert_digest.digest({"encoder": weights.params["encoder"]}, shapes=True)


def write(
    folder: str | Path,
    source: str,
    encoder_digest: str,
    config: lora.Config,
    trained: Mapping[str, Any],
    labels: tuple[str, ...],
    kind: str = "classes",
    context: str = "auto",
) -> None:
    """Write what was `trained` beside the name of its `source`; `encoder_digest` is the source's `fingerprint`.

    `context` is the one that it was trained in, of Whisper, which the source may not have.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flat = convert_names.flatten(trained)
    arrays = {path.replace("/", "."): np.asarray(array, np.float32) for path, array in flat.items()}
    writer.save_safetensors(folder / "model.safetensors", arrays)
    # A local source is found from any working directory.
    place = str(Path(source).resolve()) if Path(source).exists() else source
    said = {
        "format": FORMAT,
        "source": place,
        "source_digest": encoder_digest,
        "lora": dataclasses.asdict(config),
        "labels": list(labels),
        "kind": kind,
        "context": context,
    }
    writer.write_json(folder / "config.json", said)


def read(
    folder: Path, said: Mapping[str, Any], read_source: Callable[[str], reader.ModelWeights]
) -> reader.ModelWeights:
    """The source with the adapters merged: an ordinary model, which `writer` can write as one.

    InputError when the source is missing, or is another one than the adapters were trained beside.
    """
    origin = str(folder / "config.json")
    name, wanted, config, context = _described(said, origin)
    shown = printable.name(name, _LONGEST_SHOWN)
    try:
        source = read_source(name)
    except errors.InputError as fault:
        why = printable.name(str(fault).replace(name, "it"), 100)
        raise errors.InputError(
            f"{folder} holds adapters for {shown}, which cannot be read ({why}); bring it "
            "back, or write where it is as source in config.json"
        ) from fault
    if fingerprint(source) != wanted:
        raise errors.InputError(
            f"{folder} holds adapters for another model than the one at {shown}: bring back the source that they were "
            f"trained beside, or write where it is as source in {origin}"
        )
    stored, _ = weight_files.opened(folder / "model.safetensors")
    head, labels = reader.own_head(stored, said, origin)
    wanted_shapes = _shapes(config, source, head)
    for key in (*(f"lora.{target}.{part}" for target in config.targets for part in "ab"), *stored):
        found, shape = stored.get(key), wanted_shapes.get(key)
        if found is None or shape is None or tuple(found.shape) != shape or found.dtype.kind not in "fV":
            has = f"has shape {printable.value(tuple(found.shape))} of {found.dtype}" if found else "is absent"
            raise errors.InputError(
                f"{folder} holds other adapters than {origin} describes: {printable.name(key)} {has}"
            )
    flat = {key.replace(".", "/"): np.asarray(tensor.read(), np.float32) for key, tensor in stored.items()}
    trained = convert_names.unflatten(flat)
    encoder = convert_names.flatten(source.params["encoder"]) | convert_names.flatten(trained.get("encoder", {}))
    params = {"encoder": lora.merged(config, convert_names.unflatten(encoder), trained["lora"])}
    if "head" in trained:
        params["head"] = trained["head"]
    kind = configs.checked_kind(said, origin)
    source = source.in_context(context)
    return dataclasses.replace(source, params=params, labels=labels, kind=kind, missing=(), unused={})


def _described(said: Mapping[str, Any], origin: str) -> tuple[str, str, lora.Config, str]:
    """The source, its fingerprint, the adapters' configuration and the context. Raises InputError."""
    raw = fields.Raw(said, origin)
    low = fields.Raw(raw.take("lora", fields.OBJECT, {}), origin)
    targets = low.values.get("targets")
    texts = [said.get("source"), said.get("source_digest"), said.get("context", "auto")]
    if not all(isinstance(text, str) and 0 < len(text) <= _LONGEST for text in texts):
        raise errors.InputError(f"{origin} is damaged: it must name the adapters' source and its digest")
    if not isinstance(targets, list) or not targets or not all(target in [*lora.TARGETS] for target in targets):
        raise errors.InputError(f"{origin}: targets is {printable.value(targets)}, but adapters are of {_TARGETS}")
    rank, alpha = low.take("rank", fields.WHOLE, None), low.take("alpha", fields.NUMBER, None)
    if rank is None or alpha is None:
        raise errors.InputError(f"{origin} is damaged: it must say the adapters' rank and alpha")
    source, digest, context = texts
    return source, digest, lora.Config(rank, alpha, tuple(dict.fromkeys(targets))), context


def _shapes(config: lora.Config, source: reader.ModelWeights, head: Any) -> dict[str, tuple[int, ...]]:
    """The shape of everything that may be stored, by its name in the file."""
    shapes = {}
    for target in config.targets:
        count, inputs, outputs = np.shape(lora.kernel(source.params["encoder"], target))
        shapes[f"lora.{target}.a"] = count, inputs, config.rank
        shapes[f"lora.{target}.b"] = count, config.rank, outputs
    table = convert_names.table(source.family, source.config, head)
    return shapes | {entry.ours.replace("/", "."): entry.full_shape for entry in table}
