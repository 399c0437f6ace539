"""What transformers' feature extractor does to audio before a model gets it: its file, read and checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import fields, weight_files
from voc2vec_jax.ops import log_mel
from voc2vec_jax.runs import logs

ALONE, NESTED = "preprocessor_config.json", "processor_config.json"
RATE_HZ = 16_000
_OF_WAVES = "Wav2Vec2FeatureExtractor"
_TOLD = ("do_normalize", "sampling_rate", "return_attention_mask")  # what changes the input


def read(folder: Path) -> tuple[dict[str, Any], str]:
    """The settings of a folder's extractor, empty if it has none, and the file that they stand in.

    As in transformers 5, those inside processor_config.json go before preprocessor_config.json; a warning says where
    the two disagree. Raises InputError.
    """
    alone = weight_files.read_json(folder / ALONE) if (folder / ALONE).exists() else {}
    nested = _nested(folder)
    if nested is None:
        return alone, str(folder / ALONE)
    differ = [name for name in _TOLD if alone and alone.get(name) != nested.get(name)]
    if differ:
        values = ", ".join(f"{n} {printable.value(nested.get(n))} and {printable.value(alone.get(n))}" for n in differ)
        logs.warn(f"{folder}: {NESTED} and {ALONE} disagree ({values}); taken is {NESTED}, as transformers 5 does")
    return nested, str(folder / NESTED)


def _nested(folder: Path) -> dict[str, Any] | None:
    """The extractor inside a processor's file; None without one, as in files from before transformers 5."""
    values = weight_files.read_json(folder / NESTED) if (folder / NESTED).exists() else {}
    found = values.get("feature_extractor", values.get("audio_processor"))
    if found is not None and not isinstance(found, dict):
        raise errors.InputError(
            f"{folder / NESTED}: feature_extractor is a {type(found).__name__} where an object is needed"
        )
    return found


def check_free(folder: Path) -> None:
    """Raises InputError for a folder whose processor_config.json would hide an extractor that is written there."""
    if _nested(folder) is not None:
        raise errors.InputError(
            f"{folder / NESTED} holds a feature extractor, which transformers takes instead of the one to be written; "
            "take another folder"
        )


def normalizes(values: Mapping[str, Any], origin: str) -> bool | None:
    """Whether the extractor of a model of waves normalises clips; None if there is none.

    InputError for what cannot be done here: another rate, several channels, spectra.
    """
    if not values:
        return None
    raw = fields.Raw(values, origin)
    raw.demand("feature_extractor_type", None, _OF_WAVES)
    check_rate(raw, "sampling_rate")
    raw.demand("feature_size", 1)
    raw.demand("return_attention_mask", False, True, None)
    return raw.demand("do_normalize", True, False)


def check_rate(raw: fields.Raw, key: str) -> None:
    """Raises InputError for a model of audio at another rate than ours."""
    raw.demand(
        key,
        RATE_HZ,
        remedy=f"audio is computed at {RATE_HZ} Hz here, at which a model trained at another rate gives wrong numbers; "
        f"take one that was trained at {RATE_HZ} Hz",
    )


def masks(values: Mapping[str, Any]) -> bool:
    """Whether the extractor returns an attention mask; fairseq always makes one."""
    return bool(values.get("return_attention_mask", False)) if values else True


def check_padding(values: Mapping[str, Any], origin: str) -> None:
    """Raises InputError for an extractor that pads in another way than with zeros on the right."""
    raw, remedy = fields.Raw(values, f"the feature extractor of {origin}"), "take padding='exact', which has no padding"
    raw.demand("padding_side", "right", remedy=remedy)
    raw.demand("padding_value", 0.0, remedy=remedy)


def check_whisper(config: Any, values: Mapping[str, Any], origin: str) -> None:
    """Raises InputError for a spectrum that is not the one of `ops.log_mel`."""
    raw = fields.Raw(values, origin)
    raw.demand("feature_size", config.encoder.mel_bands)
    raw.demand("sampling_rate", log_mel.RATE_HZ)
    raw.demand("n_fft", log_mel.WINDOW)
    raw.demand("hop_length", log_mel.HOP)
    raw.demand("dither", 0.0)
    raw.demand("n_samples", config.encoder.window_samples)
