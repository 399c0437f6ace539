"""One cross-validation from its run folder to its summary."""

import contextlib
import pathlib
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from voc2vec_jax import audio, errors
from voc2vec_jax.convert import reader, sources
from voc2vec_jax.datasets import records
from voc2vec_jax.finetuning import (
    copies,
    experiment,
    faults,
    feature_sets,
    final,
    folds,
    jobs,
    kept_models,
    leaks,
    own_data,
    preview,
    provenance,
    scoring,
    seeds,
    settings,
    targets,
    tasks,
)
from voc2vec_jax.finetuning import recipe as finetuning_recipe
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.runs import agreement, checkpoint, configuration, logs, runtime, signals
from voc2vec_jax.runs import folder as run_folder

# Files whose presence means that the folder's configuration must not change.
MARKS = ("checkpoints/*", "processes/*/checkpoints/*", "fold_*/fold.json")


def run(job: jobs.CrossValidationJob, stop: signals.StopSignal) -> bool:
    """Run or resume one cross-validation, or leave a finished one as it is; False when a signal stopped it.

    With several processes each trains folds of its own on its own devices, and process 0 gathers the results.
    """
    config = job.config
    run_folder.keep_earlier(job.workdir, config, finetuning_recipe.EARLIER)
    kept_models.settle(config, job.workdir)
    config.dtype = runtime.computed_in(config.dtype, runtime.platform())
    with contextlib.ExitStack() as stack:
        values = {**configuration.as_dict(config), "layer": job.layer}
        may_differ, earlier = finetuning_recipe.MAY_DIFFER, finetuning_recipe.EARLIER
        run_folder.claim_for_all(stack, job.workdir, values, may_differ, MARKS, earlier=earlier)
        try:
            return _validate(job, stop)
        except Exception as fault:
            faults.write(job, fault)
            raise


def _validate(job: jobs.CrossValidationJob, stop: signals.StopSignal) -> bool:
    """`run` in a folder that is claimed."""
    config = job.config
    complete = agreement.decided_by_first(lambda: fold_results.status(job.workdir, config.folds).complete)
    if complete and agreement.decided_by_first(lambda: not config.final or final.done(job.workdir)):
        logs.say(f"{job.workdir} is complete: {fold_results.summary_line(job.workdir)}")
        agreement.decided_by_first(lambda: kept_models.clear_checkpoints(job.workdir))  # that a kill or 0.1.0 left
        agreement.decided_by_first(lambda: fold_results.restore_metrics(job.workdir, config.folds))
        _warn_of_changes(job)
        return True
    faults.clear(job.workdir)
    if job.fault:
        raise job.fault
    agreement.decided_by_first(lambda: seeds.check(job))
    source = None
    if job.how == "finetune":
        source = agreement.first_before_others(lambda: sources.read(job.source))
    # Process 0 goes first: it downloads weights and prepares the set, and the others find them on disk.
    task = agreement.first_before_others(lambda: open_task(job, source))
    agreement.check_same({f"the fingerprint of the clips of {job.dataset}": task.fingerprint})
    dealt = split(config, task)
    describe(job, task, dealt.splits)
    platform = runtime.platform()
    if not complete:
        setting = agreement.first_before_others(lambda: settings.build(job, task, dealt.splits, source, platform))
        preview.say_trained(setting)
        preview.say_masks(setting)
        # All end before process 0 sums up, or the others would not have written their folds.
        agreement.together(lambda: _train(job, setting, stop))
        complete = agreement.decided_by_first(lambda: gather(job, task, dealt))
    if not complete or not config.final:
        return complete
    agreement.decided_by_first(lambda: fold_results.check_task(job.workdir, 0, task))
    return agreement.decided_by_first(lambda: final.run(job, task, source, platform, stop))


def _warn_of_changes(job: jobs.CrossValidationJob) -> None:
    """Say so when the clips of a finished run have changed since, as far as they are there."""
    config, found = job.config, ""
    trained = fold_results.read_summary(job.workdir).get("records")
    if trained is None or not logs.speaks():  # a run of an earlier version
        return
    given = {name: config[name] for name in ("data", "validation_data", "test_data") if config[name]}
    paths = {name: pathlib.Path(path).expanduser() for name, path in given.items()}
    try:
        if paths:
            found = own_data.changed_since(paths, config.data_dir, trained, _reading(config))
        elif records.open_set(config.data_dir, job.dataset).fingerprint != trained:
            found = f"{job.dataset} was prepared anew since"
    except errors.InputError:
        return
    if found:
        logs.warn(f"the scores of {job.workdir} are of other clips: {found}; give another --workdir to train on these")


def _train(job: jobs.CrossValidationJob, setting: settings.CrossValidationSetting, stop: signals.StopSignal) -> None:
    """Train this process's folds."""
    own = fold_results.own_folder(job.workdir)
    own.mkdir(parents=True, exist_ok=True)
    with checkpoint.Checkpoints(own, keep=1, alone=True) as saver:
        # One report for the run folder; a resumed run keeps it, since its clips and folds are the same.
        if job.config.leaks and agreement.process_index() == 0 and not leaks.is_written(job.workdir, setting.task):
            leaks.write(job.workdir, setting.task, setting.splits, job.config.data_dir, heard(job))
        experiment.run(setting, saver, stop)


def _reading(config: ml_collections.ConfigDict) -> audio.Reading:
    return audio.Reading(*(config[name] for name in audio.Reading._fields))


def open_task(job: jobs.CrossValidationJob, source: reader.ModelWeights | None) -> tasks.Task:
    """The clips of the data set that are long enough for the model, or for the features."""
    config = job.config
    if source is None:
        least = feature_sets.least_samples(settings.feature_source(job))
    else:
        # A clip must give the encoder one frame, or there is nothing to pool.
        least = source.config.encoder.samples_for(1)
    task = tasks.open_task(
        job.dataset,
        data_dir=config.data_dir,
        data=config.data or None,
        validation_data=config.validation_data or None,
        test_data=config.test_data or None,
        manual_dir=config.manual_dir or None,
        on_unreadable=config.on_unreadable,
        max_seconds=config.max_seconds,
        least_samples=least,
        kind=config.target,
        how=_reading(config),
    )
    if task.part is not None:
        folds.check_parts(task.part, task.group, task.groups, task.ids.tolist())
    if finetuning_recipe.groups_copies(config):
        pairs = copies.find(task, config.data_dir).pairs
        copies.check_parts(task, pairs)
        task = copies.merge(task, pairs)
    return task


def split(config: ml_collections.ConfigDict, task: tasks.Task) -> folds.DealtFolds:
    """The protocol's folds; InputError when the clips do not allow them."""
    if task.part is not None:
        dealt = given_parts(config, task)
    elif config.protocol == "paper":
        dealt = folds.DealtFolds(folds.paper(len(task), config.folds))
    else:
        options = (config.folds, config.split_seed, config.validation_share)
        # A number that only one group has is between others: train need not have heard it.
        dealt = folds.strict_or_fewer(task.strata, task.group, *options, every_class=task.kind != "regression")
    splits = dealt.splits
    if dealt.fewer and task.part is None:
        logs.warn(f"{task.title}: {len(splits)} folds and not {config.folds}, since {dealt.fewer}")
    if task.kind == "regression":
        return dealt
    # The paper's sets have rare classes and were published with them; in a user's own set they are a fault to report.
    rare = config.rare if config.rare != "auto" else "keep" if task.name in tasks.PAPER_TASKS else "stop"
    for warning in folds.check(task.strata, task.labels, splits, config.protocol, task.group, rare):
        logs.warn(warning)
    return dealt


def given_parts(config: ml_collections.ConfigDict, task: tasks.Task) -> folds.DealtFolds:
    """One fold of the parts that the user gives; says where the clips for validation come from."""
    if config.protocol == "paper":
        raise errors.InputError(
            f"the clips of {task.title} are divided into parts, and --config.protocol=paper deals folds of its own: "
            "take --config.protocol=strict, or leave the parts out (a column split, folders named train and test)"
        )
    options = (config.split_seed, config.validation_share, task.kind != "regression")
    splits = folds.given(task.part, task.strata, task.group, *options)
    why = "the parts are given"
    if not (task.part == "validation").any():
        why += f", but for validation, to which {len(splits[0].validation)} of the clips of train went, by groups"
    logs.say(f"{task.title}: one fold, since {why}")
    return folds.DealtFolds(splits, why)


def describe(job: jobs.CrossValidationJob, task: tasks.Task, splits: Sequence[folds.FoldSplit]) -> None:
    """Say what is about to be computed."""
    seconds = float(task.samples.sum()) / audio.RATE_HZ
    groups = len(np.unique(task.group[task.group >= 0]))
    known = f"{groups} speakers or recordings" if groups else "no speakers known"
    what = targets.described(task.kind, task.labels, task.targets)
    sizes = "/".join(str(len(part)) for part in splits[0])
    logs.say(
        f"{task.title}: {len(task)} clips of {what}, {seconds / 3600:.2f} h, {known}; "
        f"{errors.counted(len(splits), 'fold')} ({job.config.protocol}: train/validation/test {sizes} in the first); "
        f"{job.config.dtype} on {jax.device_count()} x {jax.devices()[0].device_kind}"
    )


def heard(job: jobs.CrossValidationJob) -> provenance.TrainingData:
    """What the model of a job, or that of its features, was trained on before."""
    if job.config.fresh and job.how == "finetune":
        return provenance.NONE
    return provenance.of_model(job.source if job.how == "finetune" else settings.feature_source(job))


def gather(job: jobs.CrossValidationJob, task: tasks.Task, dealt: folds.DealtFolds) -> bool:
    """Sum up the folds that are done; whether these are all."""
    config, planned = job.config, len(dealt.splits)
    fold_results.gather_metrics(job.workdir, planned)
    about = {
        "system": job.title,
        "model": job.source,
        "protocol": config.protocol,
        "averaged_classes": scoring.averaged_classes(config.averaged_classes, config.protocol),
        "stopping": settings.stopping(config),
        "asked_folds": config.folds,
        "fewer_folds": dealt.fewer,
    }
    kept_models.prune(config.save_models, job.workdir, fold_results.status(job.workdir, planned).done)
    fold_results.write_summary(job.workdir, task, planned, about)
    if not fold_results.status(job.workdir, planned).complete:
        return False
    kept_models.clear_checkpoints(job.workdir)
    logs.say(f"{job.workdir}: {fold_results.summary_line(job.workdir)}")
    for warning in fold_results.read_summary(job.workdir)["warnings"]:
        logs.warn(warning)
    return True
