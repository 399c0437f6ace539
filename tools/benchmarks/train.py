"""Speed of a pre-training step, where its time goes, and transformers' step for comparison."""

import contextlib
import dataclasses
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import compilation_cache

from benchmarks import measuring, reference_process, train_parts
from voc2vec_jax import audio, errors
from voc2vec_jax.convert import configs
from voc2vec_jax.models import flops
from voc2vec_jax.pretraining import batch_layout
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import configuration, logs, sharding

MODELS = ("base", "large", "tiny")
STEPS = ("gradient", "update")
PROFILED_STEPS = 3
MOST_SECONDS = 600
GROWTH = ((1, 10.0), (2, 10.0), (4, 10.0), (8, 10.0), (2, 5.0), (2, 20.0), (2, 30.0))  # rows, seconds

Figure = dict[str, str | int | float | None]


@dataclasses.dataclass(frozen=True)
class TrainBenchmark:
    """What to measure: one training step on `rows` clips of `seconds`, with the recipe's dropouts.

    `step` is "gradient" (forward and backward pass) or "update" (the whole step with the optimizer: `groups` loss
    groups at a time, accumulated `micros` times).
    """

    model: str = "base"
    rows: int = 2  # in a loss group
    groups: int = 1
    micros: int = 1
    seconds: float = 10.0
    dtype: str = "float32"
    step: str = "gradient"
    remat: str = "none"
    attention: str = "auto"
    against: str | None = None
    passes: int = 3
    breakdown: bool = False
    growth: bool = False
    profile: str | None = None

    @property
    def samples(self) -> int:
        return round(self.seconds * audio.RATE_HZ)

    @property
    def clips(self) -> int:
        """In the whole step."""
        return self.rows * self.groups * self.micros


class CompiledStep:
    """voc2vec_jax's step, compiled ahead: `compile_seconds` cold, `cached_seconds` from the persistent cache."""

    def __init__(self, settings: TrainBenchmark, cached: bool = False):
        self.family, self.model, config = built(settings)
        optimizer, schedule = pretraining_recipe.build_optimizer(config)
        options = {"seed": 0, "equal_masks": False}
        one_device = sharding.make_mesh(1, jax.devices()[:1])
        self.layout = layout_of(settings)
        whole = training_step.make_update(
            self.family, self.model, optimizer, schedule, self.layout, one_device, **options
        )
        self.state = jax.jit(functools.partial(training_step.init_state, self.family, self.model, optimizer, 0))()
        self.batch = jax.device_put(noise_batch(settings))
        self.step = whole if settings.step == "update" else self._gradient
        self.donates = settings.step == "update"
        self.precision = config.matmul_precision
        with jax.default_matmul_precision(self.precision):
            self.compile_seconds, self.compiled = self._compiled()
            self.cached_seconds = None
            if cached:
                jax.clear_caches()
                self.cached_seconds, self.compiled = self._compiled()

    def _gradient(self, state, batch):
        """Gradients and metric sums of the loss groups; the state stays as it is."""
        step = state["step"]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), training_step.TRAIN), step)
        micro = training_step.as_rows(self.layout, self.model, jax.tree.map(lambda x: x[0, 0], batch), 0)

        def loss(params):
            keys = training_step.noise(key, jnp.arange(len(micro["lengths"])), micro["lengths"].shape[1])
            return training_step.loss_sums(
                self.family, self.model, params, micro, keys, step, train=True, equal_masks=False
            )

        return jax.grad(loss, has_aux=True)(state["params"])

    def _compiled(self) -> tuple[float, Any]:
        began = time.perf_counter()
        jitted = jax.jit(self.step, donate_argnums=0 if self.donates else ())
        compiled = jitted.lower(self.state, self.batch).compile()
        return time.perf_counter() - began, compiled

    def __call__(self, count: int = 1) -> None:
        """Runs so many steps and waits for them, on CPUs for each: what computes next to another one is slower."""
        for _ in range(count):
            first, second = self.compiled(self.state, self.batch)
            if self.donates:
                self.state = first
            if jax.default_backend() == "cpu":
                jax.block_until_ready((first, second))
        jax.block_until_ready((first, second))

    @property
    def memory_bytes(self) -> int:
        """What XLA says the compiled step holds at its peak: arguments, results and temporaries."""
        m = self.compiled.memory_analysis()
        return m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes

    @property
    def temporary_bytes(self) -> int:
        """The part of `memory_bytes` that is neither argument nor result: it grows with the clips."""
        return self.compiled.memory_analysis().temp_size_in_bytes


def built(settings: TrainBenchmark) -> tuple[Any, Any, Any]:
    """(family, model, recipe) of the settings."""
    config = configuration.load(f"{measuring.RECIPE}:tiny" if settings.model == "tiny" else str(measuring.RECIPE))
    if settings.model == "large":
        e = config.model.encoder
        e.width, e.depth, e.heads, e.inner_width = 1024, 24, 16, 4096
        e.conv_norm, e.conv_bias, e.norm_first = "layer", True, True
        config.model.codebook_width = config.model.target_width = 768
    config.crop_samples = max(config.crop_samples, settings.samples)
    config.dtype, config.remat, config.attention = settings.dtype, settings.remat, settings.attention
    if settings.attention != "auto":
        config.model.encoder.attention_dropout = 0.0
    return *pretraining_recipe.build_model(config), config


def layout_of(settings: TrainBenchmark) -> batch_layout.BatchLayout:
    """Loss groups of rows of one length."""
    samples = settings.samples
    return batch_layout.BatchLayout(settings.groups * settings.micros, settings.rows, samples, (samples,))


def noise_batch(settings: TrainBenchmark) -> dict[str, np.ndarray]:
    """White noise in the layout of training batches of one device: int16 [1, micros, groups, rows * samples]."""
    shape = (1, settings.micros, settings.groups)
    clips = np.random.default_rng(0).integers(-9000, 9000, (*shape, settings.rows * settings.samples)).astype(np.int16)
    lengths = np.full((*shape, settings.rows), settings.samples, np.int32)
    return {"audio": clips, "lengths": lengths, "bucket": np.zeros(shape, np.int32)}


def figures(settings: TrainBenchmark) -> Iterator[Figure]:
    """The machine's matmul rate, then the step and the reference's in turns; on request its parts and its growth."""
    check(settings)
    with _empty_cache():
        step = CompiledStep(settings, cached=True)
    names = ("model", "rows", "groups", "micros", "seconds", "step", "remat", "attention")
    common = {**{name: getattr(settings, name) for name in names}, **measuring.machine(settings.dtype)}
    rate = measuring.matmul_rate(settings.dtype)
    yield {"figure": "train matmul rate", "gflop_per_second": round(rate / 1e9, 1), **common}
    yield from _compared(settings, step, rate, common)
    if settings.profile:
        _profile(step, settings.profile)
    if settings.breakdown:
        yield from _parts(settings, step, rate, common)
    if settings.growth:
        yield from _growth(settings, common)


def check(settings: TrainBenchmark) -> None:
    """InputError for settings that cannot be measured, and for a reference that is not installed."""
    least = min(settings.rows, settings.groups, settings.micros, settings.passes)
    if least < 1 or not 0.5 <= settings.seconds <= MOST_SECONDS:
        raise errors.InputError(
            f"--rows={settings.rows} --groups={settings.groups} --micros={settings.micros} "
            f"--seconds={settings.seconds:g} --passes={settings.passes}: give 1 or more rows, groups, micros and "
            f"passes, and clips of 0.5 to {MOST_SECONDS} s"
        )
    if settings.micros > 1 and settings.step != "update":
        raise errors.InputError(f"--micros={settings.micros} is for whole updates: add --step=update")
    if settings.against and settings.remat == "products":
        raise errors.InputError(
            f"--remat=products has no counterpart in {settings.against}: give none or layer with --against"
        )
    if settings.against:
        reference_process.check()


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    """An empty persistent compilation cache, so that the first compilation is a cold one."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = [getattr(jax.config, name) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, value in zip(names, (folder, 0.0)):
                jax.config.update(name, value)
            compilation_cache.compilation_cache.reset_cache()
            yield
        finally:
            for name, value in zip(names, before):
                jax.config.update(name, value)
            compilation_cache.compilation_cache.reset_cache()


def _compared(settings: TrainBenchmark, step: CompiledStep, rate: float, common: Figure) -> Iterator[Figure]:
    programs: dict[str, Callable[[], float]] = {"voc2vec_jax": functools.partial(measuring.steady_seconds, step)}
    step()
    own = {"step_mb": round(step.memory_bytes / 1e6), **measuring.memory_held()}
    with contextlib.ExitStack() as stack:
        if settings.against:
            reference = stack.enter_context(_reference_process(settings, step))
            programs[settings.against] = functools.partial(reference.call, "steady_seconds")
        turns = [{name: measure() for name, measure in programs.items()} for _ in range(settings.passes)]
        held = {"voc2vec_jax": own}
        if settings.against:
            held[settings.against] = reference.call("memory")
    compiling = {
        "compile_seconds": round(step.compile_seconds, 1),
        "cached_compile_seconds": round(step.cached_seconds, 1),
    }
    median = {name: float(np.median([turn[name] for turn in turns])) for name in programs}
    operations = settings.clips * sum(flops.training(step.model, settings.samples).values())
    for name in programs:
        yield {
            "figure": f"train {name}",
            "step_seconds": round(median[name], 4),
            "ratio": round(median[name] / median[settings.against], 3) if settings.against else None,
            **measuring.speed([turn[name] for turn in turns], settings.clips * settings.seconds, operations, rate),
            **(compiling if name == "voc2vec_jax" else {}),
            **held[name],
            **common,
        }


def _profile(step: CompiledStep, folder: str) -> None:
    with jax.profiler.trace(folder):
        for _ in range(PROFILED_STEPS):
            step()
    logs.say(f"a trace of {PROFILED_STEPS} steps is in {pathlib.Path(folder)}; open it with xprof or Perfetto")


def _parts(settings: TrainBenchmark, step: CompiledStep, rate: float, common: Figure) -> Iterator[Figure]:
    with jax.default_matmul_precision(step.precision):
        rows = settings.rows * settings.groups
        for part in train_parts.figures(step.model, rows, settings.samples, settings.passes, rate):
            yield {**part, **common}


def _growth(settings: TrainBenchmark, common: Figure) -> Iterator[Figure]:
    """Time for each second of audio and memory for each clip, for more clips and for longer clips."""
    for rows, seconds in GROWTH:
        step = CompiledStep(dataclasses.replace(settings, rows=rows, seconds=seconds))
        median = float(np.median([measuring.steady_seconds(step) for _ in range(settings.passes)]))
        clips = rows * settings.groups * settings.micros
        yield {
            **common,
            "figure": "train growth",
            "rows": rows,
            "seconds": seconds,
            "step_seconds": round(median, 4),
            "seconds_per_audio_second": round(median / clips / seconds, 5),
            "step_mb_per_clip": round(step.temporary_bytes / rows / settings.groups / 1e6, 1),
            "passes": settings.passes,
        }


def _reference_process(settings: TrainBenchmark, step: CompiledStep) -> reference_process.ReferenceProcess:
    """transformers' step for the same architecture and batch, in its own process."""
    clips = audio.from_int16(np.asarray(step.batch["audio"][0, 0])).reshape(-1, settings.samples)
    return reference_process.ReferenceProcess(transformers_step, settings, step.model, clips)


def transformers_step(settings: TrainBenchmark, model: Any, clips: np.ndarray) -> dict[str, Callable[[], Any]]:
    """transformers' step: its "steady_seconds" and the "memory" that it held.

    Masks and negatives are drawn before the clock starts. On a GPU torch compiles the network; bfloat16 is autocast.
    The step has no feature penalty, and skips the blocks that LayerDrop drops, where voc2vec_jax computes all of them.
    """
    import torch
    import transformers
    from transformers.models.wav2vec2 import modeling_wav2vec2

    device = reference_process.set_up()
    config = transformers.Wav2Vec2Config(**configs.to_hf("wav2vec2", model))
    network = transformers.Wav2Vec2ForPreTraining(config).to(device).train()
    if settings.remat == "layer":
        network.gradient_checkpointing_enable()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=device == "cuda")
    compiled = torch.compile(network) if device == "cuda" else network
    shape = (len(clips), model.encoder.frames(settings.samples))
    mask = modeling_wav2vec2._compute_mask_indices(shape, model.mask_share, model.mask_frames)
    sampled = modeling_wav2vec2._sample_negative_indices(shape, model.negatives, mask)
    inputs = {
        "input_values": torch.tensor(clips, device=device),
        "mask_time_indices": torch.tensor(mask, device=device),
        "sampled_negative_indices": torch.tensor(sampled, device=device),
    }
    narrow = settings.dtype == "bfloat16"

    def run(count: int) -> None:
        for _ in range(count):
            for _ in range(settings.micros):
                with torch.autocast(device, torch.bfloat16, enabled=narrow):
                    loss = compiled(**inputs).loss
                loss.backward()
            if settings.step == "update":
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    run(1)
    memory_held = functools.partial(reference_process.memory_held, device)
    return {"steady_seconds": functools.partial(measuring.steady_seconds, run), "memory": memory_held}
