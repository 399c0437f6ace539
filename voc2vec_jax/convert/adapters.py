"""Adapters beside their source: a folder of some megabytes that holds what a fold trained, and the source's name.

config.json          the source, a digest of its encoder, the adapters' rank, alpha and targets, the labels
model.safetensors    adapters and head, and whatever else was trained
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voc2vec_jax import errors
from voc2vec_jax.convert import configs, reader, weight_files, writer
from voc2vec_jax.convert import digest as convert_digest
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.models import lora

FORMAT = "voc2vec_jax_adapters"


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
    origin = folder / "config.json"
    try:
        name, wanted = str(said["source"]), str(said["source_digest"])
        low = said["lora"]
        config = lora.Config(int(low["rank"]), float(low["alpha"]), tuple(map(str, low["targets"])))
    except (KeyError, TypeError, ValueError) as fault:
        raise errors.InputError(f"{origin} is damaged ({fault}): it must name the adapters' source") from fault
    try:
        source = read_source(name)
    except errors.InputError as fault:
        raise errors.InputError(
            f"{folder} holds adapters for {name}, which cannot be read ({fault}); bring it back, or write where it is "
            f"as source in {origin}"
        ) from fault
    if fingerprint(source) != wanted:
        raise errors.InputError(
            f"{folder} holds adapters for another model than the one at {name}: bring back the source that they were "
            f"trained beside, or write where it is as source in {origin}"
        )
    trained = convert_names.unflatten(
        {
            path.replace(".", "/"): array
            for path, array in weight_files.read_arrays(folder / "model.safetensors").items()
        }
    )
    if trained.get("lora", {}).keys() != set(config.targets):
        raise errors.InputError(f"{folder} holds other adapters than {', '.join(config.targets)}, which {origin} names")
    flat = convert_names.flatten(source.params["encoder"]) | convert_names.flatten(trained.get("encoder", {}))
    params = {"encoder": lora.merged(config, convert_names.unflatten(flat), trained["lora"])}
    if "head" in trained:
        params["head"] = trained["head"]
    labels = tuple(str(label) for label in said.get("labels") or ())
    kind = configs.checked_kind(said, str(origin))
    source = source.in_context(str(said.get("context", "auto")))
    return dataclasses.replace(source, params=params, labels=labels, kind=kind, missing=(), unused={})
