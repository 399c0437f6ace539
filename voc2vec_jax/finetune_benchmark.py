"""How fast ten folds train: one after another, side by side on one device, side by side on all devices."""

import dataclasses
import functools
import os
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from voc2vec_jax import audio, classifiers, crossval, errors, models, recipes, resident, runtime
from voc2vec_jax.models import heads

CLASSES = 6
MODELS = ("tiny", "base")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured: `folds` of training on `clips` noise clips of `least_seconds` to `most_seconds`."""

    model: str = "tiny"
    folds: int = 10
    clips: int = 96
    least_seconds: float = 1.0
    most_seconds: float = 3.0
    batch_clips: int = 16
    dtype: str = "float32"
    passes: int = 3


class _Noise:
    """Clips of white noise (`resident.Clips`)."""

    def __init__(self, settings: Settings):
        rng = np.random.default_rng(0)
        least, most = (round(s * audio.RATE_HZ) for s in (settings.least_seconds, settings.most_seconds))
        self.samples = rng.integers(least, most + 1, settings.clips).astype(np.int32)

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, rows) -> list[np.ndarray]:
        return [np.random.default_rng(row).integers(-9000, 9000, self.samples[row]).astype(np.int16) for row in rows]


class _Way:
    """An epoch of all folds in `slots` at a time on `devices`."""

    def __init__(self, settings: Settings, clips: _Noise, slots: int, devices: list):
        axis = "map" if devices[0].platform == "cpu" else "vmap"
        learner, recipe = _learner(settings, clips), crossval.Recipe(batch_clips=settings.batch_clips)
        self.rounds = -(-settings.folds // slots)
        self.engine = crossval.Engine(learner, recipe, slots, axis, devices)
        kept = resident.Resident(clips, np.arange(len(clips)))
        labels = (np.arange(len(clips)) % CLASSES).astype(np.int32)
        data = {"blocks": kept.blocks, "block_start": kept.block_start, "samples": clips.samples, "labels": labels}
        self.data = jax.device_put(data, self.engine.replicated)
        start = jax.jit(functools.partial(crossval.start, learner, recipe), out_shardings=self.engine.replicated)
        self.state = self.engine.empty(jax.eval_shape(start, 0))
        for slot in range(slots):
            self.state = self.engine.place(self.state, jnp.int32(slot), start(slot))
        fold = {"number": np.arange(slots, dtype=np.int32), "total_steps": np.full(slots, 1000, np.int32)}
        self.fold = self.engine.put({**fold, "class_weights": np.ones((slots, CLASSES), np.float32)})
        rows = crossval.batches(
            np.arange(len(clips)), clips.samples, settings.batch_clips, stratified=True, key=(0, 0, 0)
        )
        self.rows = self.engine.put(np.stack([rows] * slots))

    def epoch(self) -> float:
        """Seconds for an epoch of every fold; the first call compiles."""
        began = time.perf_counter()
        for _ in range(self.rounds):
            self.state, losses = self.engine.train(self.state, self.fold, self.rows, self.data)
            jax.block_until_ready(losses)
        return time.perf_counter() - began


def _learner(settings: Settings, clips: _Noise) -> classifiers.Finetuner:
    family, config = recipes.build_model(recipes.tiny(recipes.pretraining()))
    if settings.model == "base":
        config = models.FAMILIES["wav2vec2"].Config()
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, dtype=settings.dtype))
    parts = crossval.parts([clips.samples], settings.batch_clips, int(np.prod(config.encoder.conv_strides)))
    head = heads.Config(CLASSES, dtype=settings.dtype)
    return classifiers.Finetuner("wav2vec2", config, head, parts, normalize=True)


def figures(settings: Settings) -> Iterator[dict[str, str | int | float]]:
    """The median epoch of each way, which take turns, and its ratio to folds one after another."""
    if settings.model not in MODELS or min(settings.folds, settings.passes, settings.clips) < 1:
        raise errors.InputError(
            f"--model={settings.model} --folds={settings.folds} --clips={settings.clips} --passes={settings.passes}: "
            f"choose a model of {', '.join(MODELS)} and numbers of 1 or more"
        )
    runtime.one_device_a_core()
    clips, devices = _Noise(settings), jax.devices()
    seconds = settings.folds * float(clips.samples.sum()) / audio.RATE_HZ
    ways = {
        "one after another": _Way(settings, clips, 1, devices[:1]),
        "side by side": _Way(settings, clips, settings.folds, devices[:1]),
    }
    count = max(k for k in range(1, len(devices) + 1) if settings.folds % k == 0)
    if count > 1:
        ways[f"side by side on {count} devices"] = _Way(settings, clips, settings.folds, devices[:count])
    compiling = {name: way.epoch() for name, way in ways.items()}
    turns = [{name: way.epoch() for name, way in ways.items()} for _ in range(settings.passes)]
    median = {name: float(np.median([turn[name] for turn in turns])) for name in ways}
    for name in ways:
        yield {
            "figure": f"finetune {name}",
            "audio_seconds_per_second": round(seconds / median[name], 1),
            "speedup": round(median["one after another"] / median[name], 2),
            "epoch_seconds": round(median[name], 2),
            "spread": round(max(turn[name] for turn in turns) / min(turn[name] for turn in turns), 2),
            "first_epoch_seconds": round(compiling[name], 1),
            "model": settings.model,
            "folds": settings.folds,
            "dtype": settings.dtype,
            "device": devices[0].device_kind,
            "cpus": len(os.sched_getaffinity(0)),
            "load": round(os.getloadavg()[0], 1),
        }
