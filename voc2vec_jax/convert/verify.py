"""Checks that a converted model computes what its source computes.

python -m voc2vec_jax.convert.verify SRC DST        prints one JSON line
"""

import importlib.util
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from voc2vec_jax import errors, models, printable
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import reader, sources, writer
from voc2vec_jax.ops import log_mel
from voc2vec_jax.runs import program

SAMPLES = 16000
TOLERANCE = 1e-4  # of hidden states: absolute, or relative to the largest value when that is above 1

_PACKAGES = ("torch", "transformers")


def within(difference: float, largest: float, tolerance: float = TOLERANCE) -> bool:
    """Whether a difference is finite and at most `tolerance`, times `largest` where that is above 1."""
    return math.isfinite(difference) and difference <= tolerance * max(1.0, largest)


def absent() -> list[str]:
    """Which of torch and transformers are not installed."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


def in_own_process(source: Path, target: Path) -> dict[str, Any]:
    """`report` in a separate process, which returns its memory when it ends. Raises RunError if that process fails."""
    command = [sys.executable, "-m", "voc2vec_jax.convert.verify", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != errors.EXIT_DONE:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise errors.RunError(f"{target} could not be verified: {lines[-1].removeprefix('error: ')}")
    return json.loads(done.stdout.splitlines()[-1])


def report(source: Path, target: Path) -> dict[str, Any]:
    """Compares the parameters of source and target bit by bit, and our outputs with those of transformers.

    Keys: `same`, the number of equal parameters; `differ`, the names of the others; `difference` and `largest`, the
    largest difference and value of hidden states and logits, or else `unverified`, the reason why there are none.
    """
    before, after = sources.read(source), reader.read(target)
    left, right = convert_names.flatten(before.params), convert_names.flatten(after.params)
    differ = [name for name in right if name not in left or not np.array_equal(left[name], right[name])]
    found = {"same": len(right) - len(differ), "differ": differ}
    if missing := absent():
        return found | {"unverified": f"that needs {' and '.join(missing)}"}
    if after.family not in convert_names.HF_PREFIXES:
        return found | {"unverified": f"transformers has no {after.family}"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = next((_folder(p) for p, c in ((source, before), (target, after)) if _loads(p, c)), None)
        if folder is None:
            folder = Path(scratch)
            writer.write_hf(folder, after)
        return found | compared(after, folder)


def _loads(path: Path, weights: reader.ModelWeights) -> bool:
    """Whether transformers can load a source as it lies."""
    named = path.is_dir() or path.name in ("model.safetensors", "pytorch_model.bin")
    return weights.source_format == "hf" and named and not weights.wrapper


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def compared(weights: reader.ModelWeights, folder: Path) -> dict[str, float]:
    """The largest difference between our hidden states and those of the transformers model in `folder`."""
    audio = np.random.default_rng(0).standard_normal((1, SAMPLES), dtype=np.float32)
    if weights.family == "whisper":
        weights = weights.in_context("padded")  # the only one that transformers knows
    ours, theirs = _ours(weights, audio), _theirs(weights, folder, audio)
    if len(ours) != len(theirs):
        raise errors.RunError(f"our model has {len(ours)} outputs and that of transformers {len(theirs)}")
    return {
        "difference": max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs)),
        "largest": max(float(np.abs(b).max()) for b in theirs),
    }


def _ours(weights: reader.ModelWeights, audio: np.ndarray) -> list[np.ndarray]:
    import jax
    import jax.numpy as jnp

    from voc2vec_jax.models import heads

    jax.config.update("jax_default_matmul_precision", "highest")
    module = models.FAMILIES[weights.family].Model(weights.config)
    params = {"params": {"encoder": weights.params["encoder"]}}
    apply = jax.jit(lambda p, a: module.apply(p, a, jnp.array([SAMPLES]), collect=True))
    x, out = apply(params, jnp.asarray(audio))
    found = [*out["hidden_states"]]
    if weights.head:
        head = heads.Classifier(weights.head)
        states = out["hidden_states"] if weights.head.layer_sum else None
        found.append(head.apply({"params": weights.params["head"]}, x, out["valid"], states))
    return [np.asarray(array, np.float32) for array in found]


def _theirs(weights: reader.ModelWeights, folder: Path, audio: np.ndarray) -> list[np.ndarray]:
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    head, given = weights.head is not None, torch.from_numpy(audio)
    kind = transformers.AutoModelForAudioClassification if head else transformers.AutoModel
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    if weights.family == "whisper":
        encoder = weights.config.encoder
        longest = encoder.window_samples // log_mel.RATE_HZ
        extractor = transformers.WhisperFeatureExtractor(feature_size=encoder.mel_bands, chunk_length=longest)
        given = extractor(list(audio), sampling_rate=log_mel.RATE_HZ, return_tensors="pt").input_features
        model = model if head else model.encoder
    with torch.no_grad():
        out = model(given, output_hidden_states=True)
    return [tensor.numpy() for tensor in (*out.hidden_states, *([out.logits] if head else []))]


def main(argv: list[str]) -> None:
    """Prints the report on SRC and DST."""
    source, target = (Path(word) for word in argv)
    printable.show(json.dumps(report(source, target)))


if __name__ == "__main__":
    sys.exit(program.run(main))
