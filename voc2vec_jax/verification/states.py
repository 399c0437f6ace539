"""Hidden states of the recordings: as they are computed here, and as transformers computes them."""

import contextlib
import importlib.metadata
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors.numpy
from jaxtyping import Float32, Int16

from voc2vec_jax import errors, opening
from voc2vec_jax.convert import reader, weight_files
from voc2vec_jax.inference import pretrained
from voc2vec_jax.verification import recordings, rows

# [t, d] by recording and state: the input of the first block, then the output of each
States = list[list[Float32[np.ndarray, "_ _"]]]
_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")


class Difference(NamedTuple):
    """The state that is furthest off, relative to its largest value where that is above 1, and how many there are."""

    difference: float
    largest: float
    states: int

    @property
    def verdict(self) -> str:
        return rows.verdict(self.difference, self.largest)


def ours(name: str, weights: reader.ModelWeights, clips: Mapping[str, Int16[np.ndarray, " _"]]) -> States:
    """Of all recordings in one padded batch, each as if alone; float32, products in full precision.

    The input is normalised as the checkpoint says.
    """
    model = pretrained.Model(name, weights)
    lengths = np.array([len(clip) for clip in clips.values()])
    batch = np.zeros((len(clips), lengths.max()), np.int16)
    for row, clip in zip(batch, clips.values()):
        row[: len(clip)] = clip
    out = model(batch, lengths)
    arrays = [np.asarray(state, np.float32) for state in out.hidden_states]
    return [[array[k, :frames] for array in arrays] for k, frames in enumerate(out.frame_lengths)]


def theirs(folder: Path, weights: reader.ModelWeights, clips: Mapping[str, Int16[np.ndarray, " _"]]) -> States:
    """Of each recording alone, by transformers' model and feature extractor on the CPU.

    Weights of torch.save are read here and given on as safetensors under their own names, so that transformers
    unpickles nothing, which it would refuse with an old torch. Without a preprocessor's file the input is normalised as
    here.
    """
    with _without_pickles(folder) as safe:
        try:
            return _by_transformers(safe, weights, clips)
        except Exception as fault:  # whatever torch and transformers raise: other systems are still to be compared
            line = (str(fault).strip().splitlines() or [""])[0][:150]
            raise errors.RunError(f"transformers does not compute it: {type(fault).__name__}: {line}") from fault


def _by_transformers(
    folder: Path, weights: reader.ModelWeights, clips: Mapping[str, Int16[np.ndarray, " _"]]
) -> States:
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
    extractor = _extractor(transformers.Wav2Vec2FeatureExtractor, folder, weights)
    found = []
    for clip in clips.values():
        wave = clip.astype(np.float32) / -np.iinfo(np.int16).min
        values = extractor(wave, sampling_rate=recordings.RATE_HZ, return_tensors="pt").input_values
        with torch.no_grad():
            out = model(values, output_hidden_states=True)
        found.append([state[0].numpy() for state in out.hidden_states])
    return found


def _extractor(kind: Any, folder: Path, weights: reader.ModelWeights) -> Any:
    if any((folder / name).is_file() for name in _PREPROCESSORS):
        return kind.from_pretrained(folder)
    return kind(do_normalize=weights.normalizes)


@contextlib.contextmanager
def _without_pickles(folder: Path) -> Iterator[Path]:
    """A folder with the same model and no file of torch.save."""
    files = weight_files.of_folder(folder)
    if all(file.suffix == ".safetensors" for file in files):
        yield folder
        return
    tensors = {}
    for file in files:
        tensors |= {name: _plain(tensor.read()) for name, tensor in weight_files.opened(file)[0].items()}
    with tempfile.TemporaryDirectory() as scratch:
        safe = Path(scratch)
        for name in ("config.json", *_PREPROCESSORS):
            if (folder / name).is_file():
                (safe / name).write_bytes(opening.read_bytes(folder / name))
        safetensors.numpy.save_file(tensors, safe / "model.safetensors", {"format": "pt"})
        yield safe


def _plain(array: np.ndarray) -> np.ndarray:
    """Of a type that safetensors writes from NumPy."""
    return np.ascontiguousarray(array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array)


def program() -> str:
    """transformers and torch with their versions."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "torch"))


def furthest(mine: States, other: States) -> Difference:
    """The worst of all states. RunError if the two are not of one shape."""
    pairs = list(zip(_flat(mine), _flat(other)))
    if [a.shape for a in _flat(mine)] != [b.shape for b in _flat(other)]:
        raise errors.RunError(
            f"{len(_flat(mine))} states here and {len(_flat(other))} there, or of other shapes: one of the two reads "
            "another architecture"
        )
    return worst([(float(np.abs(a - b).max()), float(np.abs(b).max())) for a, b in pairs])


def worst(found: Sequence[tuple[float, float]]) -> Difference:
    """Of (difference, largest value) the pair that is furthest off; NaN is furthest of all."""
    off = [difference / max(1.0, largest) for difference, largest in found]  # argmax takes the first NaN
    return Difference(*found[int(np.argmax(off))], len(found))


def _flat(states: States) -> list[np.ndarray]:
    return [state for recording in states for state in recording]
