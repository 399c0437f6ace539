"""Checkpoints of fairseq, of WavLM and of s3prl: which family they are and how their model is built."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import extractors, fields

FINE_TUNED = "w2v_encoder.w2v_model."  # the prefix of the pre-trained part of a recogniser
_FAMILIES = {
    "wav2vec2": "wav2vec2",
    "hubert": "hubert",
    "wavlm": "wavlm",
    "data2vec_audio": "data2vec",
    "data2vec_multi": "emotion2vec",
}
# The top of s3prl's own checkpoints, which keep no description of an upstream of these families
_S3PRL_TRAINING = ("Upstream", "Downstream", "Featurizer", "Distiller", "Transformer", "Generator")


def checkpoint(tree: Any, path: Path) -> dict[str, Any] | None:
    """A checkpoint of fairseq as it is, one that s3prl has converted in fairseq's form, and None for another object.

    InputError for a checkpoint of s3prl's training.
    """
    if not isinstance(tree, dict):
        return None
    if isinstance(tree.get("model_weight"), dict) and isinstance(tree.get("model_cfg"), dict):
        cfg = {"model": tree["model_cfg"], "task": tree.get("task_cfg") or {}}
        return {"cfg": cfg, "model": tree["model_weight"]}
    trained = [key for key in _S3PRL_TRAINING if key in tree]
    if trained and ("Config" in tree or "Settings" in tree):
        raise errors.InputError(
            f"{path} is a checkpoint of s3prl's training ({', '.join(trained)}), which does not say how its upstream "
            "is built; give the upstream's own checkpoint"
        )
    described = isinstance(tree.get("cfg"), dict) or isinstance(tree.get("args"), dict)
    return tree if described and isinstance(tree.get("model"), dict) else None


def family(model: Mapping[str, Any]) -> tuple[str | None, str]:
    """The family that a model's configuration names, None for one that is not built here; and the name."""
    name = model.get("_name") or model.get("arch") or ("wavlm" if model.get("gru_rel_pos") else None)
    known = isinstance(name, str) and name in _FAMILIES
    return _FAMILIES[name] if known else None, "a model without a name" if name is None else printable.value(name)


def unknown(path: Path, name: str) -> errors.InputError:
    """The error for a checkpoint of another model."""
    return errors.InputError(f"{path} is a fairseq checkpoint of {name}, but only {', '.join(_FAMILIES)} are supported")


def described(tree: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configurations of the model and of the task, from `cfg` (nested, or flat in WavLM) or the older `args`.

    A recogniser keeps the configurations of its pre-trained part in `w2v_args`.
    """
    cfg, args = tree.get("cfg"), tree.get("args")
    whole = cfg if isinstance(cfg, dict) else args
    if not isinstance(whole, dict):
        raise errors.InputError(f"{path} holds neither cfg nor args, which say how its model is built")
    model = whole["model"] if isinstance(whole.get("model"), dict) else whole
    task = whole["task"] if isinstance(whole.get("task"), dict) else whole
    if isinstance(model.get("w2v_args"), dict):
        return described({"cfg": model["w2v_args"]}, path)
    return model, task


def normalizes(task: Mapping[str, Any], path: Path) -> bool:
    """Whether a task normalises its audio, by default not. InputError for audio at another rate than ours."""
    raw = fields.Raw(task, str(path))
    extractors.check_rate(raw, "sample_rate")
    return raw.take("normalize", fields.FLAG, False)
