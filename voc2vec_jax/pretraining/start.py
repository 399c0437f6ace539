"""Where a run starts: at its newest checkpoint, from other weights, or from the seed."""

import dataclasses
import pathlib
from typing import Any

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import initial_weights
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import checkpoint, configuration, logs


@dataclasses.dataclass(frozen=True)
class Start:
    """The training state after `step` updates, and the best validation until then (`step` and `loss`, or None)."""

    step: int
    state: Any
    best: dict[str, Any] | None = None


def identity(
    config: ml_collections.ConfigDict, examples: pretraining_data.Examples, targets: unit_store.FrameTargets | None
) -> dict[str, Any]:
    """What makes a run this run; every checkpoint holds it."""
    # A family without units saves null in this place.
    clustering = targets and targets.clustering
    return {"corpus": examples.corpus.fingerprint, "units": clustering, "config": configuration.as_dict(config)}


def restore_or_start(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    functions: training_step.TrainingFunctions,
    own: dict[str, Any],
    targets: unit_store.FrameTargets | None,
    saver: checkpoint.Checkpoints,
) -> Start:
    """The newest intact checkpoint of `workdir`; else `config.init_from`; else fresh parameters.

    `own` is the run's `identity`. InputError when the checkpoint was trained on other recordings or other units.
    """
    # The checkpoint comes before `init_from`: a run that was stopped must not begin again at its source's weights.
    # `functions.state` holds shapes and shardings only, so that no fresh state takes memory beside the restored one.
    restored = saver.restore(functions.state)
    if restored is not None:
        step, state, saved = restored
        _check_same_data(config, workdir, saved, own)
        logs.say(f"resuming {workdir} from step {step}")
        return Start(step, state, saved["best"])
    if config.init_from:
        # Weights only: the optimizer's moments and the schedule start anew, at step 0.
        params = initial_weights.continued_params(config, functions.family, functions.model, targets)
        return Start(0, functions.start(params))
    return Start(0, functions.init())


def _check_same_data(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, saved: dict[str, Any], own: dict[str, Any]
) -> None:
    if saved["corpus"] != own["corpus"]:
        raise errors.InputError(
            f"the prepared sets in {config.data_dir} are not those that {workdir} was trained on: "
            "bring the old ones back or give another --workdir"
        )
    if saved.get("units") != own["units"]:
        raise errors.InputError(
            f"the units {config.units} are not those that {workdir} was trained on: bring back its "
            "own units folder or give another --workdir"
        )
