"""A run that goes on with other values or other clips: what its folder knows of it, before and after."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.ops import optim
from voc2vec_jax.pretraining import batch_layout, held_out
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import start as training_start
from voc2vec_jax.runs import agreement, checkpoint, configuration, logs
from voc2vec_jax.runs import folder as run_folder

# Fields of which a run has one value for good: what it is, and which clips never train
FIXED = ("family", "init_from", "normalize", "units", "valid_share")
OF_CLIPS = {"corpus": "other recordings", "excluded": "other clips left out", "held_out": "other clips that validate"}
OF_RATE = ("peak_lr", "total_steps", "warmup_share")


def named(config: ml_collections.ConfigDict, text: str) -> tuple[str, ...]:
    """The fields in --resume_with, `text`; InputError for one that is no field or has one value for good."""
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    for name in names:
        configuration.find(config, name, "resume_with=")
        if name in FIXED:
            raise errors.InputError(
                f"--resume_with={name}: a run keeps its {name}; start another one in another --workdir, from this "
                "one's weights by --config.init_from"
            )
    return names


def open_examples(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, layout: batch_layout.BatchLayout, min_samples: int
) -> pretraining_data.Examples:
    """The examples of a run, split as its folder says if it has begun; InputError as `data.open_examples`.

    The list of `exclude` is read once, when the field gets its value, and adds to those read before.
    """
    if not checkpoint.steps(workdir / "checkpoints"):
        excluded = held_out.read_list(config.exclude) if config.exclude else ()
        return pretraining_data.open_examples(config, layout, min_samples, excluded=excluded)
    stored, before = run_folder.stored(workdir), held_out.kept(workdir)
    if not before.sets:  # a run of version 0.1.0
        before = _split_of(config, stored)
    excluded = before.excluded if config.exclude else ()
    if config.exclude and config.exclude != stored.get("exclude"):
        excluded = tuple(dict.fromkeys([*excluded, *held_out.read_list(config.exclude)]))
    return pretraining_data.open_examples(config, layout, min_samples, before, excluded)


def _split_of(config: ml_collections.ConfigDict, stored: Mapping[str, Any]) -> held_out.Kept:
    """The split of a run that did not write it down, from the sets that it was trained on."""
    with_sets = ml_collections.ConfigDict({**config, "sets": tuple(stored["sets"])})
    corpus = pretraining_data.open_corpus(with_sets)
    _, valid = held_out.split(corpus, stored["valid_share"], stored["seed"], held_out.NOTHING)
    return held_out.Kept(corpus.names, frozenset(corpus.ids(row) for row in valid))


def record(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    examples: pretraining_data.Examples,
    start: training_start.Start,
    changed: Mapping[str, Any],
) -> None:
    """Say what changes at the start of this process, and write it to the run folder; in process 0.

    `changed` holds fields, {field: [old, new]}.
    """
    if agreement.process_index():
        return
    # The clips first: a kill between the two leaves the old configuration, and the change is asked for again.
    held_out.keep(workdir, examples.corpus, examples.held_out_rows, examples.excluded)
    # A run that is killed before its next checkpoint starts at the same step with the same change.
    told = [entry["changed"] for entry in run_folder.history(workdir) if entry["step"] >= start.step]
    clips = {name: pair for name, pair in start.changed.items() if not any(one.get(name) == pair for one in told)}
    if not changed and not clips:
        return
    run_folder.record(workdir, configuration.as_dict(config), start.step, {**changed, **clips})
    said = [f"{name} was {json.dumps(old)}, now {json.dumps(new)}" for name, (old, new) in changed.items()]
    said += [OF_CLIPS[name] for name in clips]
    logs.say(f"{workdir} goes on from step {start.step} with {'; '.join(said)}")
    if {*OF_RATE} & changed.keys():
        before = {name: changed.get(name, (config[name],))[0] for name in OF_RATE}
        rates = [
            optim.linear_schedule(values["peak_lr"], values["total_steps"], values["warmup_share"])(start.step)
            for values in (before, config)
        ]
        logs.say("the learning rate goes from {:.3g} to {:.3g}".format(*map(float, rates)))
