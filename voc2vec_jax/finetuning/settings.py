"""From a job's configuration to what its experiment computes, as typed values.

n = clips, d = width, v = classes, k = folds.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Float32, Int32, Int64

from voc2vec_jax import audio, errors
from voc2vec_jax.convert import adapters, reader, sources, writer
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.datasets import resident
from voc2vec_jax.finetuning import adaptation, batches, feature_sets, folds, jobs, learners, scoring, slot_table, tasks
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.models import block_config, heads
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.ops import augmentation as augmentation_ops
from voc2vec_jax.runs import logs

AUDIO_CHANGES = ("augment_speed", "augment_shift", "augment_noise", "augment_gain", "mixup")  # of training clips
SaveModel = Callable[[pathlib.Path, Any], None]  # (path without a suffix, parameters)


@dataclasses.dataclass(frozen=True)
class LearnerSetting:
    """What is trained, and the arrays that it is trained on."""

    learner: fold_engine.Learner
    data: Mapping[str, Any]  # arrays of all clips, on the host or the devices
    fold_arrays: Sequence[Mapping[str, np.ndarray]]  # what the learner needs of each fold
    initial: Any  # pre-trained parameters; None: all parameters begin at random
    stratified: bool  # every batch holds one clip of every length stratum
    save_model: SaveModel


@dataclasses.dataclass(frozen=True)
class CrossValidationSetting:
    """What one cross-validation computes, and how it is spread over the devices."""

    workdir: pathlib.Path
    task: tasks.Task
    splits: Sequence[folds.FoldSplit]
    recipe: fold_engine.FineTuningRecipe
    class_weights: Float32[np.ndarray, "k v"]
    averaged: str  # the classes that recall and F1 are averaged over: one of `metrics.AVERAGED`
    trained: LearnerSetting
    axis: str  # "map" | "vmap": how a device runs its slots
    folds_at_once: int  # 0: as many as memory allows
    checkpoint_every_epochs: int = 1
    sampling: str = "all"  # one of batches.SAMPLINGS
    save_models: str = "all"  # one of kept_models.MODES

    def training_rows(self, fold: int, epoch: int) -> Int64[np.ndarray, "n"]:
        """The clips of an epoch of a fold."""
        return training_rows(self.task, self.splits[fold], self.sampling, (self.recipe.seed, fold, epoch))

    def epoch_steps(self, fold: int) -> int:
        """The batches of one epoch of a fold."""
        return -(-len(self.splits[fold].train) // self.recipe.batch_clips)

    def total_steps(self, fold: int) -> int:
        """The steps after which a fold's learning rate is 0, if it is not stopped before."""
        return self.recipe.epochs * self.epoch_steps(fold)

    def warmup_steps(self, fold: int) -> int:
        """The steps after which a fold's learning rate is at its peak."""
        return int(fold_engine.warmup(self.recipe, self.total_steps(fold)))

    def ended(self, progress: slot_table.FoldProgress) -> bool:
        """Whether a fold has ended, by its epochs or its patience."""
        # An epoch in which the rate still rises counts as one of the warm-up.
        rising = -(-self.warmup_steps(progress.fold) // self.epoch_steps(progress.fold))
        return progress.ended(self.recipe, rising if self.recipe.short_warmup else 0)

    def best_in_warmup(self, progress: slot_table.FoldProgress) -> bool:
        """Whether a fold's best epoch ended before its learning rate had reached the peak."""
        return progress.best_epoch * self.epoch_steps(progress.fold) < self.warmup_steps(progress.fold)

    def fold_batch(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
        """What the compiled programs need of some folds, stacked."""
        own = self.trained.fold_arrays
        return {
            **{name: np.stack([own[fold][name] for fold in numbers]) for name in own[0]},
            "number": np.array(numbers, np.int32),
            "total_steps": np.array([self.total_steps(fold) for fold in numbers], np.int32),
            "class_weights": self.class_weights[np.array(numbers)],
        }


def training_rows(
    task: tasks.Task, split: folds.FoldSplit, sampling: str, key: tuple[int, int, int]
) -> Int64[np.ndarray, "n"]:
    """The clips of one epoch: all that a fold trains on, or as many in which classes are equally frequent.

    `key` is (seed, fold, epoch).
    """
    return batches.balanced(split.train, task.label, key) if sampling == "balanced" else split.train


def build(
    job: jobs.CrossValidationJob,
    task: tasks.Task,
    splits: Sequence[folds.FoldSplit],
    source: reader.ModelWeights | None,
    platform: str,
) -> CrossValidationSetting:
    """The setting of a job on a platform; `source` holds the weights to fine-tune, None with features."""
    config = job.config
    axis = config.fold_axis
    weighted = weighs_classes(config)
    if axis == "auto":
        axis = fold_axis(platform, convolves=source is not None)
    return CrossValidationSetting(
        workdir=job.workdir,
        task=task,
        splits=splits,
        recipe=fold_recipe(config),
        class_weights=np.stack([class_weights(task, split.train, weighted) for split in splits]),
        averaged=scoring.averaged_classes(config.averaged_classes, config.protocol),
        trained=feature_setting(job, task, splits) if source is None else model_setting(job, task, splits, source),
        axis=axis,
        folds_at_once=config.folds_at_once,
        checkpoint_every_epochs=config.checkpoint_every_epochs,
        sampling=config.sampling,
        save_models=config.save_models,
    )


def fold_axis(platform: str, *, convolves: bool) -> str:
    """Whether folds are trained in turn ("map") or as one batch ("vmap"); `convolves`: the encoder is trained too.

    A CPU core gains nothing from larger batches, and one fold at a time stays in its cache. TPUs are slow at
    convolutions whose kernels have a batch axis: a step of four folds of base, 16 clips of 2 s each, takes 204 M
    cycles in turn and 312 M together on a v5e. On an H100, that of ten folds takes 140 GB of traffic together and
    229 GB in turn. Counted from programs compiled by jax 0.10.2 on 2026-11-28, in bfloat16.
    """
    return "map" if platform == "cpu" or (platform == "tpu" and convolves) else "vmap"


def fold_recipe(config: ml_collections.ConfigDict) -> fold_engine.FineTuningRecipe:
    """The fields of the configuration that a fold's steps depend on."""
    names = [field.name for field in dataclasses.fields(fold_engine.FineTuningRecipe) if field.name in config]
    own = {name: config[name] for name in names}
    return fold_engine.FineTuningRecipe(**own, short_warmup=stopping(config) == "after_warmup")


def stopping(config: ml_collections.ConfigDict) -> str:
    """ "published" or "after_warmup": when patience begins to count."""
    if config.stopping != "auto":
        return config.stopping
    return "published" if config.protocol == "paper" else "after_warmup"


def class_weights(task: tasks.Task, rows: Int64[np.ndarray, "n"], balanced: bool) -> Float32[np.ndarray, "v"]:
    """scikit-learn's "balanced" weights n / (v n_c) of the training clips, or ones; 0 for a class without clips.

    Of tags the clips without over those with it, as torch's documentation of `pos_weight` proposes. Of numbers one over
    the variance of the training clips, the factor between the loss in their units and that in training.
    """
    if task.kind == "regression":
        return 1 / target_scaling(task, rows)["target_scale"] ** 2
    if not balanced:
        return np.ones(len(task.labels), np.float32)
    if task.kind == "multilabel":
        having = task.targets[rows].sum(0)
        return np.where(having > 0, (len(rows) - having) / np.maximum(having, 1), 0).astype(np.float32)
    counts = np.bincount(task.label[rows], minlength=len(task.labels))
    return np.where(counts > 0, len(rows) / (len(counts) * np.maximum(counts, 1)), 0).astype(np.float32)


def target_scaling(task: tasks.Task, rows: Int64[np.ndarray, "n"]) -> dict[str, Float32[np.ndarray, "v"]]:
    """Mean and standard deviation of the numbers of some clips, by which a network learns them; {} for other kinds."""
    if task.kind != "regression":
        return {}
    values = task.targets[rows].astype(np.float64)
    deviation = values.std(0)
    # Numbers that do not differ have no deviation to divide by.
    scale = np.where(deviation > 0, deviation, 1)
    return {"target_mean": values.mean(0).astype(np.float32), "target_scale": scale.astype(np.float32)}


# --- a whole model ----------------------------------------------------------------------------------------------------


def model_setting(
    job: jobs.CrossValidationJob,
    task: tasks.Task,
    splits: Sequence[folds.FoldSplit],
    source: reader.ModelWeights,
) -> LearnerSetting:
    """Fine-tune all parameters of a model."""
    config, as_paper = job.config, job.config.protocol == "paper"
    sources.warn_of_feature_masks(job.source, source)
    source = in_context(config, source)
    encoder = encoder_config(config, source)
    shapes, stratified = batch_shapes(config, task, splits, encoder.hop_samples)
    makes_mask = bool(source.preprocessor.get("return_attention_mask", False)) if source.preprocessor else False
    adapt = adaptation.of_config(config, source)
    learner = learners.Finetuner(
        family=source.family,
        config=dataclasses.replace(source.config, encoder=encoder),
        head=heads.Config(len(task.labels), config.head_width, config.layer_sum, config.dtype, config.pooling),
        sub_batches=shapes,
        normalize=source.normalizes,
        eps=source.eps,
        attend_padding=as_paper,
        normalize_padding=as_paper and not makes_mask,
        augment=augmentation(config, source),
        waveform=waveform(config, source.normalizes),
        mixup=float(config.mixup),
        adapt=adapt,
        kind=task.kind,
    )
    # All audio lives on the devices: a task is small, and a step then needs nothing from the host but indices.
    clips = resident.Resident(task, np.arange(len(task)))
    return LearnerSetting(
        learner=learner,
        data={
            "blocks": clips.blocks,
            "block_start": clips.block_start.astype(np.int32),
            "samples": task.samples.astype(np.int32),
            "labels": labels(task),
            **({"frozen": adaptation.only(source.params, adapt.frozen)} if adapt.frozen else {}),
        },
        fold_arrays=[target_scaling(task, split.train) for split in splits],
        initial=None if config.fresh else adaptation.without({"encoder": source.params["encoder"]}, adapt.frozen),
        stratified=stratified,
        save_model=_model_saver(job, task, source, adapt),
    )


def batch_shapes(
    config: ml_collections.ConfigDict, task: tasks.Task, splits: Sequence[folds.FoldSplit], hop_samples: int
) -> tuple[tuple[tuple[int, int], ...], bool]:
    """Shapes (rows, samples) into which a batch is cut, and whether its rows must be of the strata that these fit."""
    if config.protocol == "paper":  # the official script pads every clip to the same length and shuffles regardless
        return ((config.batch_clips, round(config.max_seconds * audio.RATE_HZ)),), False
    shapes = batches.sub_batches(computed_sets(config, task, splits), config.batch_clips, hop_samples)
    return shapes, len(shapes) > 1


def weighs_classes(config: ml_collections.ConfigDict) -> bool:
    """Whether the loss counts rare classes more; says so where that was asked for and is not done."""
    # Balanced epochs are even already: weights beside them would count rare classes twice.
    if config.class_weights and config.sampling != "all":
        logs.say("sampling=balanced draws every class equally often, so that no class weights are applied")
    return config.class_weights and config.sampling == "all"


def labels(task: tasks.Task) -> np.ndarray:
    """The targets as learners take them: classes [n], or tags or numbers [n, v]."""
    return task.targets.astype(np.int32 if task.kind == "classes" else np.float32)


def computed_sets(
    config: ml_collections.ConfigDict, task: tasks.Task, splits: Sequence[folds.FoldSplit]
) -> Iterator[Int32[np.ndarray, "_"]]:
    """Samples of every set that is cut into batches: train, validation and test share one compiled program."""
    for number, split in enumerate(splits):
        yield from (task.samples[rows] for rows in split)
        if config.sampling != "all":
            # A draw may hold a long clip twice: it then needs more rows of that length than its training set has.
            for epoch in range(config.epochs):
                yield task.samples[training_rows(task, split, config.sampling, (config.seed, number, epoch))]


def waveform(config: ml_collections.ConfigDict, normalizes: bool) -> augmentation_ops.Waveform:
    """The changes to training clips that the configuration asks for, with a warning for one that has no effect."""
    if config.augment_gain and normalizes:
        logs.warn(
            "augment_gain changes nothing: this model's input is normalised, which takes any gain back; leave it at 0"
        )
    low, high = config.noise_snr
    return augmentation_ops.Waveform(
        speed=float(config.augment_speed),
        shift=float(config.augment_shift),
        noise=float(config.augment_noise),
        snr=(float(low), float(high)),
        gain=float(config.augment_gain),
    )


def in_context(config: ml_collections.ConfigDict, source: reader.ModelWeights) -> reader.ModelWeights:
    """The source as it is fine-tuned: with "auto" Whisper is cut under the strict protocol, as its clips are short."""
    cut = config.context == "auto" and config.protocol != "paper" and source.family == "whisper"
    return source.in_context("cut" if cut else config.context)


def encoder_config(config: ml_collections.ConfigDict, source: reader.ModelWeights) -> block_config.BlockConfig:
    """The source's encoder as the configuration wants it computed; InputError for an attention that cannot be."""
    encoder = dataclasses.replace(
        source.config.encoder,
        dtype=config.dtype,
        remat=config.remat,
        attention=config.attention,
        dropout_bits=config.dropout_bits,
        padding="exact",
    )
    if not config.dropouts:
        shares = ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layerdrop")
        encoder = dataclasses.replace(encoder, **{name: 0.0 for name in shares if hasattr(encoder, name)})
    attention_ops.check(encoder.attention, encoder.dtype, encoder.attention_dropout > 0)
    if encoder.window_samples and config.max_seconds * audio.RATE_HZ > encoder.window_samples:
        most = encoder.window_samples / audio.RATE_HZ
        raise errors.InputError(f"max_seconds is {config.max_seconds}: this model takes {most:g} s at most")
    return encoder


def augmentation(config: ml_collections.ConfigDict, source: reader.ModelWeights) -> learners.SpecAugment:
    """The masks that the configuration asks for; fields under 0 take the checkpoint's value, else transformers'."""
    raw, default = source.raw_config, learners.SpecAugment()
    # transformers masks Whisper's spectrum only where its configuration asks for it
    applies = raw.get("apply_spec_augment", source.family != "whisper")
    share = raw.get("mask_time_prob", default.share) if applies else 0.0
    return learners.SpecAugment(
        share=float(config.mask_share if config.mask_share >= 0 else share),
        span=int(config.mask_frames if config.mask_frames >= 0 else raw.get("mask_time_length", default.span)),
        min_spans=int(config.min_masks if config.min_masks >= 0 else raw.get("mask_time_min_masks", default.min_spans)),
        scaled=config.masks == "scaled" or (config.masks == "auto" and config.protocol != "paper"),
    )


def _model_saver(
    job: jobs.CrossValidationJob, task: tasks.Task, source: reader.ModelWeights, adapt: adaptation.Adaptation
) -> SaveModel:
    frozen = adaptation.only(source.params, adapt.frozen)
    if job.config.save_models == "lora":
        digest, labels = adapters.fingerprint(source), tuple(task.labels)
        trained_as = task.kind, getattr(source.config.encoder, "context", "auto")
        return lambda path, params: adapters.write(path, job.source, digest, adapt.lora, params, labels, *trained_as)

    def save(path: pathlib.Path, params: Any) -> None:
        what = {"labels": tuple(task.labels), "kind": task.kind}
        trained = dataclasses.replace(source, params=adapt.whole(params, frozen), **what, missing=(), unused={})
        writer.write_jax(path, trained)

    return save


# --- fixed features ---------------------------------------------------------------------------------------------------


def feature_setting(
    job: jobs.CrossValidationJob, task: tasks.Task, splits: Sequence[folds.FoldSplit]
) -> LearnerSetting:
    """Train a small network on fixed features."""
    config = job.config
    unused = [name for name in AUDIO_CHANGES if config[name]] + adaptation.asked(config)
    if unused:
        logs.warn(f"{job.title} learns from fixed features, where these fields change nothing: {', '.join(unused)}")
    found = feature_sets.features(
        task,
        feature_source(job),
        layer=-1 if job.layer is None else job.layer,
        context=config.context,
        cache_dir=pathlib.Path(config.data_dir) / "features",
    )
    width = 0 if job.how == "probe" else config.hidden_width
    return LearnerSetting(
        learner=learners.FeatureLearner(len(task.labels), found.shape[1], width, kind=task.kind),
        data={"features": found.astype(np.float32), "labels": labels(task)},
        fold_arrays=[
            {**scaling(found[split.train], config.scale), **target_scaling(task, split.train)} for split in splits
        ],
        initial=None,
        stratified=False,
        save_model=_save_network,
    )


def feature_source(job: jobs.CrossValidationJob) -> str:
    """What the features come from: the job's source, unless `features` names another set for openSMILE, or an .npz."""
    chosen = job.config.features
    return chosen if chosen and (chosen.endswith(".npz") or job.source in feature_sets.FEATURE_SETS) else job.source


def scaling(features: Float32[np.ndarray, "n d"], how: str) -> dict[str, np.ndarray]:
    """`shift` and `scale` [d] for (x - shift) * scale; a feature that is constant in training is only shifted."""
    if how == "none":
        return {"shift": np.zeros(features.shape[1], np.float32), "scale": np.ones(features.shape[1], np.float32)}
    wide = features.astype(np.float64)  # openSMILE's features reach 1e11, whose squares float32 cannot sum
    deviation = wide.std(0)
    return {
        "shift": wide.mean(0).astype(np.float32),
        # A constant feature has no deviation to divide by: after the shift it is 0 in training.
        "scale": (1 / np.where(deviation > 0, deviation, 1)).astype(np.float32),
    }


def _save_network(path: pathlib.Path, params: Any) -> None:
    fold_results.write_npz(path.with_suffix(".npz"), **convert_names.flatten(params))
