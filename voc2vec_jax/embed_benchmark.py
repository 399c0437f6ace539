"""How fast `Model.embed` turns files into vectors, whether grouping changes them, and transformers on the same."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from voc2vec_jax import (
    audio,
    convert,
    convert_names,
    convert_write,
    errors,
    evaluate_benchmark,
    logs,
    model_sources,
    models,
    peer,
    pretrained,
)

PADDED_ROWS = 16  # clips in a padded batch of transformers
ORDERS = ("paths", "shuffled")  # by path, neighbours are of one set and have like lengths
REGROUPED_CLIPS = 64  # clips that are embedded once more in another grouping


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured: `model` (None: base size with random weights) on `clips` of the files under `input`."""

    input: str
    model: str | None = None
    clips: int = 0  # evenly spread among all; 0: all
    against: str | None = None
    batch_seconds: float | None = None
    dtype: str = "float32"
    passes: int = 1
    evaluate: bool = False  # batch evaluation, too
    order: str = "paths"  # of ORDERS, for all sides


def figures(settings: Settings) -> Iterator[dict[str, str | int | float]]:
    """Our speed with and without compilation, agreement of two groupings, and the other side's on the same files.

    At most REGROUPED_CLIPS random clips are grouped otherwise (any vector depends on its own clip only). Every time
    includes decoding. The sides take turns, `passes` times, every other time in reverse, and the median counts;
    "difference" is from our first vectors.
    """
    if settings.against:
        peer.check()
    files = _files(settings)
    seconds = sum(len(audio.load(path)) for path in files) / audio.RATE_HZ
    common = {
        "files": len(files),
        "audio_seconds": round(seconds, 1),
        "device": jax.devices()[0].device_kind,
        "cpus": len(os.sched_getaffinity(0)),
        "dtype": settings.dtype,
        "order": settings.order,
    }

    def figure(name: str, elapsed: float, **more) -> dict[str, str | int | float]:
        return {"figure": f"embed {name}", "audio_seconds_per_second": round(seconds / elapsed, 2), **common, **more}

    def ours(order=slice(None), batch_seconds=settings.batch_seconds) -> np.ndarray:
        return model.embed(list(np.array(files)[order]), batch_seconds=batch_seconds)

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        model = _model(settings, folder)
        ways: dict[str, Callable[[], np.ndarray]] = {"voc2vec_jax": ours}
        if settings.evaluate:
            ways["voc2vec_jax, evaluate"] = evaluate_benchmark.way(model, files, settings.batch_seconds)
        if settings.against:
            other = stack.enter_context(peer.Peer(transformers_loops, folder, files, model.checkpoint.normalizes))
            ways |= {name: functools.partial(other.call, name) for name in other.names}
        first, elapsed = _timed(ours)
        yield figure("voc2vec_jax with compilation", elapsed, compilations=model.compilations)
        order = np.random.default_rng(0).permutation(len(files))[:REGROUPED_CLIPS]
        difference = np.abs(
            ours(order, 0.37 * (settings.batch_seconds or pretrained.default_batch_seconds())) - first[order]
        )
        yield {
            "figure": "embed shuffled and grouped otherwise",
            "largest_difference": float(difference.max()),
            **(common | {"files": len(order)}),
        }
        if settings.evaluate:
            ways["voc2vec_jax, evaluate"]()  # compiles
        timed = [{name: _timed(ways[name]) for name in turn} for turn in _turns(list(ways), settings.passes)]
        for name in ways:
            times = [one[name][1] for one in timed]
            yield figure(
                name,
                float(np.median(times)),
                best=round(seconds / min(times), 2),
                difference=float(np.abs(timed[0][name][0] - first).max()),
                passes=settings.passes,
                load=round(os.getloadavg()[0], 1),
            )


def _model(settings: Settings, folder: str) -> pretrained.Model:
    """The model under test; both sides read it from the same `folder` when there is another side."""
    checkpoint = model_sources.read(settings.model) if settings.model else random_base()
    if settings.against:
        convert_write.write_hf(folder, checkpoint)
        checkpoint = model_sources.read(folder)
    return pretrained.Model(settings.model or "random base", checkpoint, settings.dtype)


def random_base() -> convert.Checkpoint:
    """wav2vec 2.0 base with random weights of a trained model's scale."""
    config = models.FAMILIES["wav2vec2"].Config()
    rng = np.random.default_rng(0)
    flat = {}
    for entry in convert_names.table("wav2vec2", config):
        ones = entry.ours.endswith(("/scale", "/g"))
        fan_in = np.prod(entry.shape[:-1], dtype=int)
        flat[entry.ours] = ones + rng.standard_normal(entry.full_shape, dtype=np.float32) * np.float32(
            0.1 if ones or len(entry.shape) == 1 else fan_in**-0.5
        )
    return convert.Checkpoint("wav2vec2", config, convert_names.unflatten(flat), normalize=True)


def _files(settings: Settings) -> list[pathlib.Path]:
    folder = pathlib.Path(settings.input)
    if not folder.is_dir():
        raise errors.InputError(f"--input={folder} is no folder: give one that holds recordings")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in audio.SUFFIXES)
    if not found:
        raise errors.InputError(f"--input={folder} holds no audio file ({', '.join(audio.SUFFIXES)})")
    if settings.clips < 0 or settings.passes < 1:
        raise errors.InputError(f"--clips={settings.clips} --passes={settings.passes}: give 0 or more, 1 or more")
    step = max(1, len(found) // settings.clips) if settings.clips else 1
    found = found[::step][: settings.clips or None]
    if settings.order == "shuffled":
        random.Random(0).shuffle(found)
    return found


def _turns(names: list[str], passes: int) -> list[list[str]]:
    """There and back again: who comes after another side finds caches and memory cold."""
    return [names[:: 1 if turn % 2 == 0 else -1] for turn in range(passes)]


def _timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def transformers_loops(folder: str, files: list[pathlib.Path], normalizes: bool) -> dict[str, Callable[[], np.ndarray]]:
    """The loops that its users write: mean of the last frames, clip by clip and in padded batches with a mask."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalizes, return_attention_mask=True)
    network = transformers.AutoModel.from_pretrained(folder).eval().to(device)

    def embed(rows: int) -> np.ndarray:
        vectors = []
        for start in range(0, len(files), rows):
            clips = [audio.load(path) for path in files[start : start + rows]]
            batch = extractor(clips, sampling_rate=audio.RATE_HZ, padding=True, return_tensors="pt").to(device)
            with torch.inference_mode():
                frames = network(**batch).last_hidden_state
                lengths = network._get_feat_extract_output_lengths(batch["attention_mask"].sum(1))
                kept = torch.arange(frames.shape[1], device=device)[None] < lengths[:, None]
                vectors.append(((frames * kept[..., None]).sum(1) / lengths[:, None]).cpu().numpy())
        return np.concatenate(vectors)

    logs.say(f"transformers {transformers.__version__} on torch {torch.__version__}, {device}")
    return {
        "transformers, clips singly": lambda: embed(1),
        f"transformers, padded batches of {PADDED_ROWS}": lambda: embed(PADDED_ROWS),
    }
