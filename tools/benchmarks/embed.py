"""Speed of turning files into vectors: `Model.embed`, batch evaluation, and transformers on the same files."""

import contextlib
import dataclasses
import functools
import pathlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float32

from benchmarks import measuring, reference_process
from voc2vec_jax import audio, errors, models
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import reader, sources, writer
from voc2vec_jax.inference import batch_sizes, batching, pretrained
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.inference.evaluation import scores as evaluation_scores
from voc2vec_jax.inference.evaluation import worker
from voc2vec_jax.models import flops

REFERENCE_BATCH_CLIPS = (1, 4, 16)  # clips in a batch of the reference
ORDERS = ("paths", "shuffled")  # sorted by path, neighbours come from one set and have similar lengths
REGROUPED_CLIPS = 64  # clips embedded again in other batches
WARM_UP_CLIPS = 16  # for the reference on CPUs, where torch compiles nothing

Figure = dict[str, str | int | float]


@dataclasses.dataclass(frozen=True)
class EmbedBenchmark:
    """What is measured: `model` (None: base size with random weights) on `clips` of the files under `input`."""

    input: str
    model: str | None = None
    clips: int = 0  # evenly spread among all; 0: all
    against: str | None = None
    batch_seconds: float | None = None
    dtype: str = "float32"
    passes: int = 1
    evaluate: bool = False  # measure batch evaluation too
    order: str = "paths"  # one of ORDERS, the same for every program


def figures(settings: EmbedBenchmark) -> Iterator[Figure]:
    """Speed with and without compilation, agreement of two batchings, and the reference on the same files.

    At most REGROUPED_CLIPS random clips are embedded again in other batches: a vector depends on its own clip only.
    Every time includes decoding. The programs take turns `passes` times, every second time in reverse order, and the
    median counts. "ratio" is the time divided by that of the fastest reference loop; "difference" is the largest from
    the first vectors of `Model.embed`.
    """
    if settings.against:
        reference_process.check()
    files = _files(settings)
    samples = [len(audio.load(path)) for path in files]
    seconds = sum(samples) / audio.RATE_HZ
    rate = measuring.matmul_rate(settings.dtype)
    common = {
        "model": settings.model or "random base",
        "files": len(files),
        "audio_seconds": round(seconds, 1),
        "order": settings.order,
        **measuring.machine(settings.dtype),
    }

    with tempfile.TemporaryDirectory() as folder:
        model = _model(settings, folder)

        def embed(order=slice(None), batch_seconds=settings.batch_seconds) -> np.ndarray:
            return model.embed(list(np.array(files)[order]), batch_seconds=batch_seconds)

        yield {"figure": "embed matmul rate", "gflop_per_second": round(rate / 1e9, 1), **common}
        yield {**_shapes(model, samples, settings.batch_seconds), **common}
        first, elapsed = _timed(embed)
        yield {
            "figure": "embed voc2vec_jax with compilation",
            "audio_seconds_per_second": round(seconds / elapsed, 2),
            "compilations": model.compilations,
            **common,
        }
        yield _alone(model, files, first, elapsed, common)
        yield _regrouped(settings, model.platform, embed, first, common)
        turns, held = _in_turns(settings, model, folder, files, embed)
    times = {name: [turn[name][1] for turn in turns] for name in held}
    reference_seconds = [float(np.median(times[name])) for name in times if name.startswith("transformers")]
    operations = sum(sum(flops.forward(model.config, n).values()) for n in samples)
    for name in times:
        yield {
            "figure": f"embed {name}",
            **measuring.speed(times[name], seconds, operations, rate),
            **(
                {"ratio": round(float(np.median(times[name])) / min(reference_seconds), 3)} if reference_seconds else {}
            ),
            "difference": float(np.abs(turns[0][name][0] - first).max()),
            **held[name],
            **common,
        }


def _in_turns(
    settings: EmbedBenchmark, model: pretrained.Model, folder: str, files: list[pathlib.Path], embed: Callable
) -> tuple[list[dict[str, tuple[np.ndarray, float]]], dict[str, dict[str, int]]]:
    """Vectors and seconds of every program in every turn, and the memory that each held."""
    ways: dict[str, Callable[[], np.ndarray]] = {"voc2vec_jax": embed}
    if settings.evaluate:
        ways["voc2vec_jax, evaluate"] = evaluation_way(model, files, settings.batch_seconds)
        ways["voc2vec_jax, evaluate"]()  # compiles
    held = dict.fromkeys(ways, measuring.memory_held())
    with contextlib.ExitStack() as stack:
        loops: list[str] = []
        if settings.against:
            arguments = folder, files, model.checkpoint.normalizes, settings.dtype
            reference = stack.enter_context(reference_process.ReferenceProcess(transformers_loops, *arguments))
            loops = [name for name in reference.names if name != "memory"]
            ways |= {name: functools.partial(reference.call, name) for name in loops}
        turns = [{name: _timed(ways[name]) for name in turn} for turn in _turns(list(ways), settings.passes)]
        held |= {name: reference.call("memory") for name in loops}
    return turns, held


def _shapes(model: pretrained.Model, samples: list[int], batch_seconds: float | None) -> Figure:
    """How many static shapes `Model.embed` compiles for recordings of these lengths, and the share of padding."""
    seconds = batch_seconds or batch_sizes.batch_seconds(model.platform)
    layout = model.layout((samples, 1.0), 30.0, 2.0, seconds, recurring=True)
    windows = [(item, window) for item, count in enumerate(samples) for window in layout.windows(count)]
    silence = np.zeros(layout.window_samples, np.float32)
    pieces = (batching.Piece(item, 0, silence[: w.stop - w.start], w.first, w.last) for item, w in windows)
    made = [batch.audio.shape for batch in batching.batches(pieces, layout)]
    computed = sum(rows * length for rows, length in made)
    return {
        "figure": "embed shapes",
        "lengths": len({length for _, length in made}),
        "shapes": len(set(made)),
        "batches": len(made),
        "share_of_padding": round(1 - sum(w.stop - w.start for _, w in windows) / computed, 3),
    }


def _alone(
    model: pretrained.Model, files: list[pathlib.Path], first: np.ndarray, seconds_of_list: float, common: Figure
) -> Figure:
    """A call for each file, with the shapes that it compiles, beside one call with the list."""
    before = model.compilations
    alone, elapsed = _timed(lambda: np.concatenate([model.embed(file) for file in files]))
    return {
        "figure": "embed with a call for each file, with compilation",
        "seconds_to_those_of_a_list": round(elapsed / seconds_of_list, 3),
        "compilations": model.compilations - before,
        "largest_difference": float(np.abs(alone - first).max()),
        **common,
    }


def _regrouped(settings: EmbedBenchmark, platform: str, embed: Callable, first: np.ndarray, common: Figure) -> Figure:
    order = np.random.default_rng(0).permutation(len(first))[:REGROUPED_CLIPS]
    again = embed(order, 0.37 * (settings.batch_seconds or batch_sizes.batch_seconds(platform)))
    difference = float(np.abs(again - first[order]).max())
    return {
        "figure": "embed shuffled and grouped otherwise",
        "largest_difference": difference,
        **common,
        "files": len(order),
    }


def _model(settings: EmbedBenchmark, folder: str) -> pretrained.Model:
    """The model under test; with a reference, both programs read it from `folder`."""
    checkpoint = sources.read(settings.model) if settings.model else random_base()
    if settings.against:
        writer.write_hf(folder, checkpoint)
        checkpoint = sources.read(folder)
    return pretrained.Model(settings.model or "random base", checkpoint, settings.dtype)


def random_base() -> reader.ModelWeights:
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
    return reader.ModelWeights("wav2vec2", config, convert_names.unflatten(flat), normalize=True)


def _files(settings: EmbedBenchmark) -> list[pathlib.Path]:
    folder = pathlib.Path(settings.input)
    if not folder.is_dir():
        raise errors.InputError(f"--input={folder} is not a folder: give one that holds recordings")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in audio.SUFFIXES)
    if not found:
        raise errors.InputError(f"--input={folder} holds no audio file ({', '.join(audio.SUFFIXES)})")
    if settings.clips < 0 or settings.passes < 1:
        raise errors.InputError(f"--clips={settings.clips} --passes={settings.passes}: give 0 or more, 1 or more")
    taken = min(settings.clips or len(found), len(found))
    found = [found[k * len(found) // taken] for k in range(taken)]
    if settings.order == "shuffled":
        random.Random(0).shuffle(found)
    return found


def _turns(names: list[str], passes: int) -> list[list[str]]:
    """Forwards and backwards in turn, because a program that follows another finds caches and memory cold."""
    return [names[:: 1 if turn % 2 == 0 else -1] for turn in range(passes)]


def _timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def evaluation_way(
    model: pretrained.Model, files: Sequence[pathlib.Path], batch_seconds: float | None
) -> Callable[[], Float32[np.ndarray, "n d"]]:
    """A function that embeds the files as `voc2vec_jax.evaluate` does: Parquet is written, synced and read back."""
    settings = worker.EvaluationSettings(batch_seconds=batch_seconds or 0.0)

    def vectors() -> Float32[np.ndarray, "n d"]:
        with tempfile.TemporaryDirectory() as folder:
            listed = pathlib.Path(folder, "files.txt")
            listed.write_text("".join(f"{path.resolve()}\n" for path in files))
            items = evaluation_inputs.open_input(str(listed))
            output = evaluation_output.OutputFolder(
                pathlib.Path(folder, "out"), worker.describe(model, items, settings)
            )
            worker.Worker(model, items, output, settings).run(output.missing())
            evaluation_scores.finish(output)
            table = pq.read_table(output.root / "parts").sort_by("row")
            return np.stack(table[f"layer_{model.config.encoder.depth}"].to_numpy())

    return vectors


def transformers_loops(
    folder: str, files: list[pathlib.Path], normalizes: bool, dtype: str
) -> dict[str, Callable[[], Any]]:
    """The loops that users of transformers write: the mean over frames, one clip at a time and in padded batches.

    bfloat16 is torch's autocast; on a GPU the network is compiled for changing lengths. "memory" is what they held.
    """
    import torch
    import transformers

    device = reference_process.set_up()
    narrow = getattr(torch, dtype) if dtype != "float32" else None
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalizes, return_attention_mask=True)
    network = transformers.AutoModel.from_pretrained(folder).eval().to(device)
    compiled = torch.compile(network, dynamic=True) if device == "cuda" else network

    def embed(rows: int, files: list[pathlib.Path]) -> np.ndarray:
        vectors = []
        for start in range(0, len(files), rows):
            clips = [audio.load(path) for path in files[start : start + rows]]
            batch = extractor(clips, sampling_rate=audio.RATE_HZ, padding=True, return_tensors="pt").to(device)
            with torch.inference_mode(), torch.autocast(device, narrow, enabled=narrow is not None):
                frames = compiled(**batch).last_hidden_state.float()
                lengths = network._get_feat_extract_output_lengths(batch["attention_mask"].sum(1))
                kept = torch.arange(frames.shape[1], device=device)[None] < lengths[:, None]
                vectors.append(((frames * kept[..., None]).sum(1) / lengths[:, None]).cpu().numpy())
        return np.concatenate(vectors)

    for rows in REFERENCE_BATCH_CLIPS:
        embed(rows, files if device == "cuda" else files[:WARM_UP_CLIPS])
    loops = {"transformers, clips singly": functools.partial(embed, 1, files)}
    padded = {
        f"transformers, padded batches of {n}": functools.partial(embed, n, files) for n in REFERENCE_BATCH_CLIPS[1:]
    }
    return loops | padded | {"memory": functools.partial(reference_process.memory_held, device)}
