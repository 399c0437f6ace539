"""Checks that an ONNX file computes what the model computes that it was made of."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import pretrained
from voc2vec_jax.runs import extras

TOLERANCE = 1e-4  # absolute, or relative to the largest value where that is above 1
_SECONDS = (3.0, 1.7, 0.6)  # of the clips of a padded batch


def difference(model: pretrained.Model, path: Path) -> float:
    """The largest difference between onnxruntime's outputs of a padded batch and the model's of its clips alone.

    Of probabilities, embeddings and frames, each over its largest value where that is above 1. InputError without
    onnxruntime, RunError for a file that gives other frames.
    """
    try:
        import onnxruntime
    except ImportError:
        raise errors.InputError(
            f"checking {path} needs onnxruntime: {extras.command('onnx')}, or give --verify=false"
        ) from None
    clips = _clips(model.config.encoder.samples_for(1))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    padded, lengths = np.ones((len(clips), len(clips[0])), np.float32), np.array([len(clip) for clip in clips])
    for row, clip in zip(padded, clips):
        row[: len(clip)] = clip
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"audio": padded, "lengths": lengths})))
    frames = model.embed(clips, pool=None)
    if found["frame_lengths"].tolist() != [len(each) for each in frames]:
        raise errors.RunError(f"{path} gives {found['frame_lengths'].tolist()} frames, the model other ones")
    pairs = [(model.embed(clips), found["embedding"])]
    pairs += [(each, row[: len(each)]) for each, row in zip(frames, found["last_hidden_state"])]
    if model.labels:
        pairs.append((model.predict(clips).probabilities, found["probabilities"]))
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(a).max())) for a, b in pairs)


def _clips(least: int) -> list[Float32[np.ndarray, "_s"]]:
    """Noise of different lengths, the longest first."""
    rng = np.random.default_rng(0)
    lengths = [max(least, round(seconds * audio.RATE_HZ)) for seconds in _SECONDS]
    return [(0.02 + 0.1 * rng.standard_normal(length)).astype(np.float32) for length in lengths]
