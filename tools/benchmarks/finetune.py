"""Speed of training ten folds: one after another, and side by side on one device or on all of them."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measuring, reference_process
from voc2vec_jax import audio, errors, models
from voc2vec_jax.convert import configs
from voc2vec_jax.datasets import resident
from voc2vec_jax.finetuning import batches as fold_batches
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.finetuning import learners
from voc2vec_jax.finetuning import settings as fold_settings
from voc2vec_jax.models import flops, heads
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.runs import configuration, cpu_tuning

CLASSES = 6
CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "finetune.py"
MODELS = ("tiny", "base")
ONE = "one after another"
LEAST_SECONDS, MOST_SECONDS = 0.1, 30.0


@dataclasses.dataclass(frozen=True)
class FinetuneBenchmark:
    """What to measure: `folds` folds, each of `clips` noise clips of `least_seconds` to `most_seconds`."""

    model: str = "tiny"
    folds: int = 10
    clips: int = 96
    least_seconds: float = 1.0
    most_seconds: float = 3.0
    batch_clips: int = 16
    dtype: str = "float32"
    passes: int = 3
    against: str | None = None


class _NoiseClips:
    """White noise behind the interface of `resident.Clips`."""

    def __init__(self, settings: FinetuneBenchmark):
        rng = np.random.default_rng(0)
        least, most = (round(s * audio.RATE_HZ) for s in (settings.least_seconds, settings.most_seconds))
        self.samples = rng.integers(least, most + 1, settings.clips).astype(np.int32)

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, rows) -> list[np.ndarray]:
        return [np.random.default_rng(row).integers(-9000, 9000, self.samples[row]).astype(np.int16) for row in rows]


class _Schedule:
    """An epoch of every fold, `slots` folds at a time on `devices`."""

    def __init__(self, settings: FinetuneBenchmark, clips: _NoiseClips, slots: int, devices: list):
        axis = "map" if devices[0].platform == "cpu" else "vmap"
        learner, recipe = _learner(settings, clips), _recipe(settings)
        self.config, self.rounds = learner.config, -(-settings.folds // slots)
        self.engine = fold_engine.Engine(learner, recipe, slots, axis, devices)
        kept = resident.Resident(clips, np.arange(len(clips)))
        labels = (np.arange(len(clips)) % CLASSES).astype(np.int32)
        data = {"blocks": kept.blocks, "block_start": kept.block_start, "samples": clips.samples, "labels": labels}
        self.data = jax.device_put(data, self.engine.replicated)
        start = jax.jit(functools.partial(fold_engine.start, learner, recipe), out_shardings=self.engine.replicated)
        self.state = self.engine.empty(jax.eval_shape(start, 0))
        for slot in range(slots):
            self.state = self.engine.place(self.state, jnp.int32(slot), start(slot))
        fold = {"number": np.arange(slots, dtype=np.int32), "total_steps": np.full(slots, 1000, np.int32)}
        self.fold = self.engine.put({**fold, "class_weights": np.ones((slots, CLASSES), np.float32)})
        rows = fold_batches.batches(
            np.arange(len(clips)), clips.samples, settings.batch_clips, stratified=True, key=(0, 0, 0)
        )
        self.rows = self.engine.put(np.stack([rows] * slots))

    def epoch(self) -> float:
        """Seconds that an epoch of every fold takes; the first call compiles."""
        began = time.perf_counter()
        for _ in range(self.rounds):
            self.state, losses = self.engine.train(self.state, self.fold, self.rows, self.data)
            jax.block_until_ready(losses)
        return time.perf_counter() - began


def _learner(settings: FinetuneBenchmark, clips: _NoiseClips) -> learners.Finetuner:
    family, config = pretraining_recipe.build_model(configuration.load(f"{measuring.RECIPE}:tiny"))
    if settings.model == "base":
        config = models.FAMILIES["wav2vec2"].Config()
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, dtype=settings.dtype))
    parts = fold_batches.sub_batches([clips.samples], settings.batch_clips, int(np.prod(config.encoder.conv_strides)))
    head = heads.Config(CLASSES, dtype=settings.dtype)
    return learners.Finetuner("wav2vec2", config, head, parts, normalize=True)


def _recipe(settings: FinetuneBenchmark) -> fold_engine.FineTuningRecipe:
    config = configuration.load(f"{CONFIG}:synthetic")
    return dataclasses.replace(fold_settings.fold_recipe(config), batch_clips=settings.batch_clips)


def figures(settings: FinetuneBenchmark) -> Iterator[dict[str, Any]]:
    """The median epoch of each schedule, and its speed-up over folds one after another; the schedules take turns."""
    check(settings)
    cpu_tuning.one_device_a_core()
    clips, devices = _NoiseClips(settings), jax.devices()
    rate = measuring.matmul_rate(settings.dtype)
    common = {
        **{name: getattr(settings, name) for name in ("model", "folds", "clips", "batch_clips")},
        **measuring.machine(settings.dtype),
    }
    yield {"figure": "finetune matmul rate", "gflop_per_second": round(rate / 1e9, 1), **common}
    with jax.default_matmul_precision("highest"), contextlib.ExitStack() as stack:
        schedules = _schedules(settings, clips, devices)
        first = {name: schedule.epoch() for name, schedule in schedules.items()}
        epochs: dict[str, Callable[[], float]] = {name: schedule.epoch for name, schedule in schedules.items()}
        held = {name: measuring.memory_held() for name in schedules}
        config = schedules[ONE].config
        if settings.against:
            reference = stack.enter_context(
                reference_process.ReferenceProcess(transformers_epoch, settings, config, clips.samples)
            )
            epochs[settings.against] = functools.partial(reference.call, "epoch")
        turns = [{name: epoch() for name, epoch in epochs.items()} for _ in range(settings.passes)]
        if settings.against:
            held[settings.against] = reference.call("memory")
    median = {name: float(np.median([turn[name] for turn in turns])) for name in epochs}
    seconds = settings.folds * float(clips.samples.sum()) / audio.RATE_HZ
    parts = [flops.training(config, int(samples)) for samples in clips.samples]
    operations = settings.folds * sum(sum(part.values()) - part["objective"] for part in parts)
    for name in epochs:
        yield {
            "figure": f"finetune {name}",
            "speedup": round(median[ONE] / median[name], 2),
            **({"ratio": round(median[name] / median[settings.against], 3)} if settings.against else {}),
            "epoch_seconds": round(median[name], 2),
            **({"first_epoch_seconds": round(first[name], 1)} if name in first else {}),
            **measuring.speed([turn[name] for turn in turns], seconds, operations, rate),
            **held[name],
            **common,
        }


def check(settings: FinetuneBenchmark) -> None:
    """InputError for settings that cannot be measured, and for a reference that is not installed."""
    if settings.model not in MODELS:
        raise errors.InputError(f"--model={settings.model} is none of {', '.join(MODELS)}")
    for name in ("folds", "clips", "batch_clips", "passes"):
        if getattr(settings, name) < 1:
            raise errors.InputError(f"--{name}={getattr(settings, name)}: give 1 or more")
    if not LEAST_SECONDS <= settings.least_seconds <= settings.most_seconds <= MOST_SECONDS:
        raise errors.InputError(
            f"--least_seconds={settings.least_seconds:g} --most_seconds={settings.most_seconds:g}: give "
            f"{LEAST_SECONDS} <= least <= most <= {MOST_SECONDS}"
        )
    if settings.against:
        reference_process.check()


def _schedules(settings: FinetuneBenchmark, clips: _NoiseClips, devices: list) -> dict[str, _Schedule]:
    schedules = {
        ONE: _Schedule(settings, clips, 1, devices[:1]),
        "side by side": _Schedule(settings, clips, settings.folds, devices[:1]),
    }
    count = max(k for k in range(1, len(devices) + 1) if settings.folds % k == 0)
    if count > 1:
        schedules[f"side by side on {count} devices"] = _Schedule(settings, clips, settings.folds, devices[:count])
    return schedules


def transformers_epoch(settings: FinetuneBenchmark, config: Any, samples: np.ndarray) -> dict[str, Callable[[], Any]]:
    """transformers' "epoch": seconds for its folds one after another, in shuffled padded batches; and its "memory".

    Architecture, dropouts, masks and optimizer are the same. Its LayerDrop skips the dropped blocks. On a GPU
    torch compiles the network.
    """
    import torch
    import transformers

    device = reference_process.set_up()
    described = transformers.Wav2Vec2Config(**configs.to_hf("wav2vec2", config), num_labels=CLASSES)
    network = transformers.Wav2Vec2ForSequenceClassification(described).to(device).train()
    compiled = torch.compile(network, dynamic=True) if device == "cuda" else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.0, fused=device == "cuda")
    clips = [np.random.default_rng(row).standard_normal(count, np.float32) for row, count in enumerate(samples)]
    narrow, rng = settings.dtype == "bfloat16", np.random.default_rng(0)

    def step(rows: np.ndarray) -> None:
        padded = torch.zeros(len(rows), max(len(clips[row]) for row in rows))
        mask = torch.zeros(padded.shape, dtype=torch.long)
        for place, row in enumerate(rows):
            padded[place, : len(clips[row])] = torch.from_numpy(clips[row])
            mask[place, : len(clips[row])] = 1
        labels = torch.from_numpy(rows % CLASSES).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            loss = compiled(padded.to(device), attention_mask=mask.to(device), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def epoch(folds: int = settings.folds) -> float:
        began = time.perf_counter()
        for _ in range(folds):
            order = rng.permutation(len(clips))
            for at in range(0, len(order), settings.batch_clips):
                step(order[at : at + settings.batch_clips])
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    epoch(1)
    return {"epoch": epoch, "memory": functools.partial(reference_process.memory_held, device)}
