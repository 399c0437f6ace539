"""The parameters of a run that continues from other weights."""

import pathlib
from types import ModuleType
from typing import Any

import jax
import ml_collections
import numpy as np

from voc2vec_jax import errors
from voc2vec_jax.convert import reader, sources
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import folder as run_folder
from voc2vec_jax.runs import logs, sharding

# Fields that say how a model is trained or computed. They may differ: weights do not depend on them.
NOT_ARCHITECTURE = ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layerdrop")
NOT_ARCHITECTURE += ("dtype", "remat", "attention", "padding", "dropout_bits")
HEAD_SHAPES = ("codebook_groups", "codebook_entries", "codebook_width", "target_width")


def continued_params(
    config: ml_collections.ConfigDict, family: ModuleType, model: Any, targets: unit_store.FrameTargets | None = None
) -> Any:
    """Parameters of `config.init_from`; what it lacks is initialised afresh, and a warning names it.

    Heads that were trained on other units than `targets` count as lacking. InputError when the source is of another
    family or another architecture.
    """
    source = sources.read(config.init_from)
    if source.family != config.family:
        raise errors.InputError(
            f"{config.init_from} is a {source.family} model and the configuration trains {config.family}: "
            "give weights of the same family"
        )
    # A class embedding means "cluster k of this clustering"; under another clustering it would mean nothing.
    of_other_units = targets is not None and unit_store.clustering_of_run(config.init_from) != targets.clustering
    # Heads that are initialised afresh may have any shape.
    has_heads = not of_other_units and not any(name.startswith("quantizer") for name in source.missing)
    check_same_architecture(config.init_from, source.config, model, has_heads)
    if config.normalize not in ("auto", own := normalize_of(source)):
        logs.warn(f"{config.init_from} was trained with normalize {own}, and this run is with {config.normalize}")
    sources.warn_of_feature_masks(config.init_from, source)
    taken = by_name(source.params)
    for name in family.OF_UNITS if of_other_units else ():
        taken.pop(name, None)
    # The tree to fill: it has every name, and random values where `taken` has none.
    fresh = jax.device_get(family.init_params(model, jax.random.key(config.seed)))
    _report_taken(config.init_from, list(by_name(fresh)), taken, of_other_units)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: np.asarray(taken.get(sharding.path_name(path), x), x.dtype), fresh
    )


def normalize_of(source: reader.ModelWeights) -> str:
    """The recipe's name for how a source normalises its clips."""
    eps = source.eps if source.normalizes else None
    return next((name for name, value in reader.NORMALIZE_EPS.items() if value == eps), "clip")


def settled_normalize(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> str:
    """`config.normalize`, "auto" as the run in `workdir` has it, else as `init_from` was trained, else "none"."""
    if config.normalize != "auto":
        return config.normalize
    stored = run_folder.stored(workdir)
    if "normalize" in stored and stored.get("init_from") == config.init_from:
        return stored["normalize"]
    if not config.init_from:
        return "none"
    found = normalize_of(sources.read(config.init_from))
    logs.say(f"normalize is {found}, as {config.init_from} was trained")
    return found


def by_name(params: Any) -> dict[str, Any]:
    """The leaves of a tree under their names, such as encoder/norm/scale."""
    return {sharding.path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}


def _report_taken(source: str, names: list[str], taken: dict[str, Any], of_other_units: bool) -> None:
    missing = [name for name in names if name not in taken]
    logs.say(f"continuing from {source}: {len(names) - len(missing)} of {len(names)} parameters taken over")
    if missing:
        why = f"NOT in {source}" + ", or of other units" * of_other_units
        logs.warn(f"{why}, so freshly initialised: {', '.join(missing)}")


def check_same_architecture(name: str, source: Any, model: Any, has_heads: bool) -> None:
    """InputError when the weights are of another architecture; it names the overrides to type."""
    if not getattr(source.encoder, "feature_norm", True):
        raise errors.InputError(f"{name} has no norm behind its stem, so pre-training cannot continue it: fine-tune it")
    # Fields that change no shape count too, such as norm_first: the same weights would compute something else.
    encoder = {field: value for field, value in vars(source.encoder).items() if field not in NOT_ARCHITECTURE}
    heads = [field for field in HEAD_SHAPES if has_heads and hasattr(model, field)]
    pairs = {f"encoder.{field}": (getattr(model.encoder, field), value) for field, value in encoder.items()}
    pairs |= {field: (getattr(model, field), getattr(source, field)) for field in heads}
    differing = {field: found for field, (wanted, found) in pairs.items() if wanted != found}
    if differing:
        overrides = " ".join(f"--config.model.{field}={override_text(found)}" for field, found in differing.items())
        raise errors.InputError(f"{name} is of another architecture than the configuration: add {overrides}")


def override_text(value: Any) -> str:
    """A value as the command line takes it: 1,2,3 and true."""
    return ",".join(str(item) for item in value) if isinstance(value, tuple) else str(value).lower()
