"""Where a run starts: at its newest checkpoint, from other weights, or from the seed."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from voc2vec_jax import errors
from voc2vec_jax.pretraining import batch_plan, held_out, initial_weights
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import agreement, checkpoint, configuration, logs

# Fields on which the batch plan depends: with another value of one, the same step holds other clips.
OF_PLAN = ("sets", "set_weights", "seed", "crop_samples", "bucket_samples", "batch_seconds", "group_rows")
OF_PLAN += ("same_length_groups",)
SHOWN_DIGITS = 12  # of a fingerprint in the history of a run
DATA = ("corpus", "units", "excluded", "held_out", "validation")  # of `identity`
# What the clips of a run are, and the field that says so: (in the checkpoint's metadata, field, in words)
OF_CLIPS = (
    ("corpus", "sets", "the prepared sets in {data_dir}"),
    ("excluded", "exclude", "the clips left out by {exclude}"),
    ("held_out", "sets", "the clips held out for validation"),
)


@dataclasses.dataclass(frozen=True)
class Start:
    """The training state after `step` updates, and the best validation until then (`step` and `loss`, or None).

    Step k of the run is step k + `plan_offset` of the batch plan, which is 0 unless the plan was changed. `changed`
    says what of the clips is another than in the checkpoint, {"corpus": [old, new]}.
    """

    step: int
    state: Any
    best: dict[str, Any] | None = None
    plan_offset: int = 0
    changed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def identity(
    config: ml_collections.ConfigDict, examples: pretraining_data.Examples, targets: unit_store.FrameTargets | None
) -> dict[str, Any]:
    """What makes a run this run; every checkpoint holds it."""
    corpus = examples.corpus
    return {
        "corpus": corpus.fingerprint,
        "units": targets and targets.clustering,  # a family without units saves null
        "excluded": held_out.digest(examples.excluded),
        "held_out": held_out.digest([corpus.ids(row) for row in examples.held_out_rows]),
        "validation": held_out.digest([corpus.ids(row) for row in examples.valid_rows]),
        "config": configuration.as_dict(config),
    }


def place_in_plan(plan: batch_plan.BatchPlan, plan_step: int) -> dict[str, int]:
    """Where in its plan a run is; a checkpoint holds it, so that a changed plan goes on after as many passes."""
    return {"plan_step": plan_step, "steps_per_epoch": plan.steps_per_epoch}


def restore_or_start(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    functions: training_step.TrainingFunctions,
    own: dict[str, Any],
    plan: batch_plan.BatchPlan,
    targets: unit_store.FrameTargets | None,
    saver: checkpoint.Checkpoints,
    resume_with: Sequence[str] = (),
    history: Sequence[Mapping[str, Any]] = (),
) -> Start:
    """The newest intact checkpoint of `workdir`; else `config.init_from`; else fresh parameters.

    `own` is the run's `identity`, `history` the changes of its configuration so far and `resume_with` the fields that
    change here. InputError when the checkpoint was trained on other clips or other units, and no change says so, and
    when processes found other data than process 0.
    """
    agreement.check_same({f"the fingerprint of what --config.data_dir holds ({name})": own[name] for name in DATA})
    # The checkpoint comes before `init_from`: a run that was stopped must not begin again at its source's weights.
    # `functions.state` holds shapes and shardings only, so that no fresh state takes memory beside the restored one.
    restored = saver.restore(functools.partial(_shapes_of, config, functions))
    if restored is not None:
        step, state, saved = restored
        changed = {*resume_with, *(name for entry in history if entry["step"] >= step for name in entry["changed"])}
        others = _changed_clips(config, workdir, saved, own, changed)
        logs.say(f"resuming {workdir} from step {step}")
        place = _place(plan, step, saved, own, others)
        return Start(step, _completed(functions, state), _comparable(saved, own), place - step, others)
    if config.init_from:
        # Weights only: the optimizer's moments and the schedule start anew, at step 0.
        params = initial_weights.continued_params(config, functions.family, functions.model, targets)
        return Start(0, functions.start(params))
    return Start(0, functions.init())


def _shapes_of(
    config: ml_collections.ConfigDict, functions: training_step.TrainingFunctions, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The shapes of a checkpoint's state, which was saved under another configuration, perhaps by another version."""
    saved, state = metadata.get("config", {}), dict(functions.state)
    if "max_bad_updates" not in saved:  # version 0.1.0
        del state["bad_in_row"]
    if bool(saved.get("clip_norm", config.clip_norm)) != bool(config.clip_norm):
        state["opt_state"] = _rechained(state["opt_state"])
    state.pop("ema", None)
    return {**state, "ema": state["params"]} if saved.get("ema_decay") else state


def _completed(functions: training_step.TrainingFunctions, state: dict) -> dict:
    """A restored state with what the present configuration has, and nothing else."""
    wanted = functions.state
    if len(state["opt_state"]) != len(wanted["opt_state"]):
        state = {**state, "opt_state": _rechained(state["opt_state"])}
    if "bad_in_row" not in state:
        state["bad_in_row"] = jax.jit(lambda: jnp.zeros([], jnp.int32), out_shardings=wanted["step"].sharding)()
    if "ema" in wanted:
        return state if "ema" in state else functions.begin_average(state)
    return {name: state[name] for name in wanted}


def _rechained(opt_state: tuple) -> tuple:
    """The optimizer's state without the entry of clipping where it has one, and with it where it has none."""
    clipped = isinstance(opt_state[0], optax.EmptyState)
    return opt_state[1:] if clipped else (optax.EmptyState(), *opt_state)


def _changed_clips(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    saved: dict[str, Any],
    own: dict[str, Any],
    changed: Collection[str],
) -> dict[str, Any]:
    """What of the clips is another than in the checkpoint; InputError if no change in `changed` says so."""
    others = {}
    for name, field, words in OF_CLIPS:
        if saved.get(name, own[name]) == own[name]:  # version 0.1.0 held the corpus alone
            continue
        if not {name, field} & set(changed):
            what = words.format(data_dir=config.data_dir, exclude=f"exclude={config.exclude}")
            raise errors.InputError(
                f"{what} are not those that {workdir} was trained with: bring the old ones back, go on with the "
                f"new ones by --resume_with={field}, or give another --workdir"
            )
        others[name] = [saved[name][:SHOWN_DIGITS], own[name][:SHOWN_DIGITS]]
    if saved.get("units") != own["units"]:
        raise errors.InputError(
            f"the units {config.units} are not those that {workdir} was trained on: bring back its "
            "own units folder or give another --workdir"
        )
    return others


def _comparable(saved: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any] | None:
    """The best validation so far, unless other clips validate from here on."""
    if saved["best"] and saved.get("validation", own["validation"]) != own["validation"]:
        logs.say("other clips validate from here on: the best loss of those before is not compared with")
        return None
    return saved["best"]


def _place(
    plan: batch_plan.BatchPlan,
    step: int,
    saved: Mapping[str, Any],
    own: Mapping[str, Any],
    others: Mapping[str, Any],
) -> int:
    """The step of the plan that comes next: of another plan, the one after as many passes over its clips."""
    before, now = saved["config"], json.loads(json.dumps(own["config"]))
    place = saved.get("plan_step", step)  # version 0.1.0 had no other plan
    if not others and all(before.get(name, now[name]) == now[name] for name in OF_PLAN):
        return place
    if "steps_per_epoch" in saved:
        passes = place / saved["steps_per_epoch"]
    else:
        passes = place * before["batch_seconds"] / (now["batch_seconds"] * plan.steps_per_epoch)
    logs.say(f"the batches are others from here on, after {passes:.3g} passes over the clips")
    return round(passes * plan.steps_per_epoch)
