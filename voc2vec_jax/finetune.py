"""Cross-validated fine-tuning: `python -m voc2vec_jax.finetune --config=configs/finetune.py:DATASET --workdir=RUN`."""

import contextlib
import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from voc2vec_jax import audio, errors
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import reader, sources, writer
from voc2vec_jax.datasets import resident
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.finetuning import experiment, feature_sets, folds, leaks, learners, paper_systems, summary, tasks
from voc2vec_jax.finetuning import recipe as finetuning_recipe
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.inference import pretrained
from voc2vec_jax.models import heads
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.ops import masking
from voc2vec_jax.runs import agreement, checkpoint, cli, configuration, distributed, logs, runtime, signals
from voc2vec_jax.runs import folder as run_folder

FLAGS = {
    "config": cli.Flag("recipe: PATH:DATASET", kind=cli.CONFIG, required=True),
    "workdir": cli.Flag("run folder; a rerun with the same one resumes", required=True),
    **distributed.FLAGS,
}
MARKS = ("checkpoints/*", "processes/*/checkpoints/*", "fold_*/fold.json")


@dataclasses.dataclass(frozen=True)
class Job:
    """One data set and one system, in a run folder of its own."""

    dataset: str
    name: str  # of the system, as tables show it
    source: str
    how: str  # "finetune" | "features" | "probe"
    layer: int | None  # of a probe
    workdir: pathlib.Path
    config: ml_collections.ConfigDict


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    runtime.keep_memory()
    arguments = cli.parse(argv, flags=FLAGS, program="python -m voc2vec_jax.finetune")
    distributed.join(arguments)
    return finetune(arguments.config, arguments.workdir)


def finetune(config: ml_collections.ConfigDict, workdir: str) -> int:
    """Run or resume the cross-validations that `config` describes; returns the exit status."""
    finetuning_recipe.check(config)
    runtime.one_device_a_core()
    runtime.set_up_jax(config)
    with signals.StopSignal() as stop:  # at once, for the runtime has taken SIGTERM and would keep it to itself
        distributed.share(stop)
        agreement.same(dict(configuration.fields(config)))
        jobs = list(plan_jobs(config, pathlib.Path(workdir)))
        for number, job in enumerate(jobs):
            if len(jobs) > 1:
                logs.say(f"[{number + 1}/{len(jobs)}] {job.dataset}, {job.name}: {job.workdir}")
            if not run(job, stop):
                return errors.EXIT_STOPPED
    return errors.EXIT_DONE


def plan_jobs(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Iterator[Job]:
    """Every pair of a data set and a system; a single one has the run folder itself."""
    named = [config.model] if config.model else list(config.systems)
    named = list(finetuning_recipe.PAPER_SYSTEMS) if named == ["paper"] else named
    titles = [system_title(config, name) for name in named]
    for title in titles:
        if titles.count(title) > 1:
            raise errors.InputError(f"two of the systems have the same name {title}: give each once")
    pairs = [(dataset, paper_systems.resolve(name), name) for dataset in config.datasets for name in named]
    for dataset, (system, source), name in pairs:
        title = system_title(config, name)
        how = config.how if config.how != "auto" else system.kind if system else "finetune"
        folder = workdir if len(pairs) == 1 else workdir / dataset / title
        own = ml_collections.ConfigDict(configuration.as_dict(config))
        own.datasets, own.model, own.systems, own.how = (dataset,), name, (), how
        if how != "probe":
            yield Job(dataset, title, source, how, None, folder, own)
            continue
        for layer in probe_layers(config.layers, source):
            yield Job(dataset, f"{title}-layer-{layer:02d}", source, how, layer, folder / f"layer_{layer:02d}", own)


def system_title(config: ml_collections.ConfigDict, name: str) -> str:
    """What tables and folders call a system."""
    system, _ = paper_systems.resolve(name)
    title = config.name or (system.name if system else slug(name))
    return f"{title}-fresh" if config.fresh and not config.name else title


def slug(name: str) -> str:
    """A source as a short name that is also a folder's: its last part, plain characters only."""
    last = pathlib.PurePath(name.rstrip("/")).name or name
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") or "model"


def probe_layers(text: str, source: str) -> list[int]:
    """The layers of a probe: 0 is what enters the first block, k the output of block k."""
    depth = sources.read(source).config.encoder.depth
    if text == "all":
        return list(range(depth + 1))
    found = [configuration.parse_value("--config.layers", item, int) for item in text.split(",")]
    for layer in found:
        if not 0 <= layer <= depth:
            raise errors.InputError(f"--config.layers={text}: {source} has layers 0 to {depth}, and no {layer}")
    return found


def run(job: Job, stop: signals.StopSignal) -> bool:
    """One cross-validation, or False when a signal stopped it; a finished one is left as it is.

    Of several processes each trains folds of its own, on its own devices; process 0 gathers what they leave.
    """
    config = job.config
    with contextlib.ExitStack() as stack:
        values = {**configuration.as_dict(config), "layer": job.layer}
        run_folder.claim_for_all(stack, job.workdir, values, finetuning_recipe.MAY_DIFFER, MARKS)
        if agreement.of_first(lambda: summary.is_complete(job.workdir)):
            logs.say(f"{job.workdir} is complete: {summary.line(job.workdir)}")
            return True
        checkpoint_ = None
        if job.how == "finetune":
            checkpoint_ = agreement.first_alone(lambda: sources.read(job.source))
        task = agreement.first_alone(lambda: open_task(job, checkpoint_))
        splits = split(config, task)
        describe(job, task, splits)
        own = fold_results.own_folder(job.workdir)
        own.mkdir(parents=True, exist_ok=True)
        saver = stack.enter_context(checkpoint.Checkpoints(own, keep=1, alone=True))
        setting = agreement.first_alone(lambda: build(job, task, splits, checkpoint_))
        if config.leaks and agreement.index() == 0 and not (job.workdir / "leaks.json").is_file():
            leaks.write(job.workdir, task, splits, config.data_dir, pretraining_sets(job.source))
        experiment.Experiment(setting, saver).run(stop)
        agreement.wait_for_all()
        return agreement.of_first(lambda: gather(job, task))


def gather(job: Job, task: tasks.Task) -> bool:
    """The summary of the folds that are done; whether these are all."""
    fold_results.gather_metrics(job.workdir, job.config.folds)
    summary.write(job.workdir, job.name, job.source, task, job.config)
    if not summary.is_complete(job.workdir):
        return False
    logs.say(f"{job.workdir}: {summary.line(job.workdir)}")
    return True


def open_task(job: Job, source: reader.ModelWeights | None) -> tasks.Task:
    """The clips of the data set; those of the model's least length are long enough."""
    config = job.config
    if source is None:
        least = feature_sets.least_samples(feature_source(job))
    else:
        encoder = source.config.encoder
        least = masking.samples_for_frames(1, encoder.conv_kernels, encoder.conv_strides)
    return tasks.open_task(
        job.dataset,
        data_dir=config.data_dir,
        data=config.data or None,
        manual_dir=config.manual_dir or None,
        on_unreadable=config.on_unreadable,
        max_seconds=config.max_seconds,
        least_samples=least,
    )


def split(config: ml_collections.ConfigDict, task: tasks.Task) -> list[folds.Fold]:
    """The protocol's folds; InputError when the clips do not allow them."""
    if config.protocol == "paper":
        splits = folds.paper(len(task), config.folds)
    else:
        splits = folds.strict(task.label, task.group, config.folds, config.split_seed, config.validation_share)
    rare = config.rare if config.rare != "auto" else "keep" if task.name in finetuning_recipe.TASKS else "stop"
    for warning in folds.check(task.label, task.labels, splits, config.protocol, task.group, rare):
        logs.warn(warning)
    return splits


def describe(job: Job, task: tasks.Task, splits: list[folds.Fold]) -> None:
    """What is about to be computed."""
    seconds = float(task.samples.sum()) / audio.RATE_HZ
    groups = len(np.unique(task.group[task.group >= 0]))
    known = f"{groups} speakers or recordings" if groups else "no speakers known"
    sizes = "/".join(str(len(part)) for part in splits[0])
    logs.say(
        f"{task.title}: {len(task)} clips of {len(task.labels)} classes, {seconds / 3600:.2f} h, {known}; "
        f"{len(splits)} folds ({job.config.protocol}: train/validation/test {sizes} in the first)"
    )


def build(
    job: Job, task: tasks.Task, splits: list[folds.Fold], source: reader.ModelWeights | None
) -> experiment.Setting:
    """What the experiment computes."""
    config = job.config
    recipe = fold_engine.Recipe(**{f.name: config[f.name] for f in dataclasses.fields(fold_engine.Recipe)})
    weights = np.stack([class_weights(task, fold.train, config.class_weights) for fold in splits])
    axis = config.fold_axis
    if axis == "auto":
        axis = "map" if jax.default_backend() == "cpu" else "vmap"
    common = dict(
        workdir=job.workdir,
        task=task,
        splits=splits,
        recipe=recipe,
        axis=axis,
        slots=config.folds_at_once,
        class_weights=weights,
        checkpoint_every_epochs=config.checkpoint_every_epochs,
    )
    make = model_setting if job.how == "finetune" else feature_setting
    return experiment.Setting(**common, **make(job, task, splits, source))


def class_weights(task: tasks.Task, rows: np.ndarray, balanced: bool) -> np.ndarray:
    """scikit-learn's "balanced" weights n / (v n_c) of the training clips, or ones; 0 for a class without clips."""
    if not balanced:
        return np.ones(len(task.labels), np.float32)
    counts = np.bincount(task.label[rows], minlength=len(task.labels))
    return np.where(counts > 0, len(rows) / (len(counts) * np.maximum(counts, 1)), 0).astype(np.float32)


def model_setting(job: Job, task: tasks.Task, splits: list[folds.Fold], source: reader.ModelWeights) -> dict[str, Any]:
    """The parts of a setting that fine-tune a whole model."""
    config, as_paper = job.config, job.config.protocol == "paper"
    how = {name: config[name] for name in ("dtype", "remat", "attention")}
    encoder = dataclasses.replace(source.config.encoder, **how, padding="exact")
    if not config.dropouts:
        quiet = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layerdrop"), 0.0)
        encoder = dataclasses.replace(encoder, **quiet)
    attention_ops.check(encoder.attention, encoder.dtype, encoder.attention_dropout > 0)
    model = dataclasses.replace(source.config, encoder=encoder)
    longest = round(config.max_seconds * audio.RATE_HZ)
    if as_paper:
        parts = ((config.batch_clips, longest),)
    else:
        sets = [task.samples[rows] for fold in splits for rows in fold]
        parts = fold_engine.parts(sets, config.batch_clips, int(np.prod(encoder.conv_strides)))
    makes_mask = bool(source.preprocessor.get("return_attention_mask", False)) if source.preprocessor else False
    learner = learners.Finetuner(
        family=source.family,
        config=model,
        head=heads.Config(len(task.labels), config.head_width, config.layer_sum, config.dtype),
        parts=parts,
        normalize=source.normalizes,
        eps=pretrained.normalisation_eps(source),
        attend_padding=as_paper,
        normalize_padding=as_paper and not makes_mask,
        augment=augmentation(config, source),
    )
    clips = resident.Resident(task, np.arange(len(task)))
    data = {"blocks": clips.blocks, "block_start": clips.block_start, "samples": task.samples, "labels": task.label}
    for name in ("block_start", "samples", "labels"):
        data[name] = data[name].astype(np.int32)

    def save(folder: pathlib.Path, params: Any) -> None:
        writer.write_jax(
            folder, dataclasses.replace(source, params=params, labels=tuple(task.labels), missing=(), unused={})
        )

    return dict(
        learner=learner,
        data=data,
        fold_arrays=[{} for _ in splits],
        initial=None if config.fresh else {"encoder": source.params["encoder"]},
        stratified=len(parts) > 1,
        save_model=save if config.save_models else None,
    )


def augmentation(config: ml_collections.ConfigDict, source: reader.ModelWeights) -> learners.SpecAugment:
    """The configuration's masks; what it leaves open is the checkpoint's own, else transformers' default."""
    raw, default = source.raw_config, learners.SpecAugment()
    own = (
        raw.get("mask_time_prob", default.share) if raw.get("apply_spec_augment", True) else 0.0,
        raw.get("mask_time_length", default.span),
        raw.get("mask_time_min_masks", default.min_spans),
    )
    wanted = (config.mask_share, config.mask_frames, config.min_masks)
    share, span, min_spans = (value if value >= 0 else said for value, said in zip(wanted, own))
    return learners.SpecAugment(float(share), int(span), int(min_spans))


def feature_source(job: Job) -> str:
    """The feature set or the .npz that replaces openSMILE's default, else the job's own source."""
    chosen = job.config.features
    return chosen if chosen and (chosen.endswith(".npz") or job.source in feature_sets.FEATURE_SETS) else job.source


def feature_setting(job: Job, task: tasks.Task, splits: list[folds.Fold], source: None) -> dict[str, Any]:
    """The parts of a setting that train a small network on fixed features."""
    config = job.config
    layer = -1 if job.layer is None else job.layer
    found = feature_sets.features(
        task, feature_source(job), layer=layer, cache_dir=pathlib.Path(config.data_dir) / "features"
    )
    learner = learners.FeatureLearner(
        len(task.labels), found.shape[1], 0 if job.how == "probe" else config.hidden_width
    )

    def save(folder: pathlib.Path, params: Any) -> None:
        fold_results.write_npz(folder.with_suffix(".npz"), **convert_names.flatten(params))

    return dict(
        learner=learner,
        data={"features": found.astype(np.float32), "labels": task.label.astype(np.int32)},
        fold_arrays=[scaling(found[fold.train], config.scale) for fold in splits],
        initial=None,
        stratified=False,
        save_model=save if config.save_models else None,
    )


def scaling(features: np.ndarray, how: str) -> dict[str, np.ndarray]:
    """`shift` and `scale` of each feature; a feature that is constant in training is only shifted."""
    if how == "none":
        return {"shift": np.zeros(features.shape[1], np.float32), "scale": np.ones(features.shape[1], np.float32)}
    wide = features.astype(np.float64)
    deviation = wide.std(0)
    return {
        "shift": wide.mean(0).astype(np.float32),
        "scale": (1 / np.where(deviation > 0, deviation, 1)).astype(np.float32),
    }


def pretraining_sets(source: str) -> tuple[str, ...]:
    """The data sets that a pre-training run of ours was trained on, () for any other source."""
    path = pathlib.Path(source) / "config.json"
    if not path.is_file():
        return ()
    found = json.loads(path.read_bytes())
    return tuple(str(name) for name in found.get("sets") or ()) if isinstance(found, dict) else ()


if __name__ == "__main__":
    sys.exit(distributed.run(main))
