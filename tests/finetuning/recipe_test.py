"""The recipe is what configs/finetune.py states: values are pinned, gaps are named, nonsense is refused."""

import json
import math
import pathlib
import re

import ml_collections
import pytest

from voc2vec_jax import errors
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.finetuning import recipe as finetuning_recipe
from voc2vec_jax.finetuning import settings, tasks
from voc2vec_jax.runs import configuration

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "finetune.py"
# As run folders hold it: a value that changes here stops every run that was begun before from being resumed.
EVERY_FIELD = {
    "attention": "auto",
    "augment_gain": 0.0,
    "augment_noise": 0.0,
    "augment_shift": 0.0,
    "augment_speed": 0.0,
    "averaged_classes": "auto",
    "batch_clips": 16,
    "channel": "mean",
    "checkpoint_every_epochs": 1,
    "class_weights": True,
    "clip_norm": 1.0,
    "context": "auto",
    "data": "",
    "data_dir": "data",
    "datasets": ["donateacry"],
    "deterministic": False,
    "dropout_bits": "hash",
    "dropouts": True,
    "dtype": "float32",
    "epochs": 50,
    "features": "",
    "final": False,
    "fold_axis": "auto",
    "folds": 10,
    "folds_at_once": 0,
    "freeze": "none",
    "freeze_updates": 0,
    "fresh": False,
    "group_copies": "auto",
    "head_width": 256,
    "hidden_width": 256,
    "how": "auto",
    "layer_decay": 1.0,
    "layer_sum": False,
    "layers": "all",
    "leaks": True,
    "lora_alpha": 16.0,
    "lora_rank": 0,
    "lora_targets": "query,value",
    "manual_dir": "",
    "mask_frames": -1,
    "mask_share": -1.0,
    "masks": "auto",
    "matmul_precision": "highest",
    "max_seconds": 7.0,
    "min_masks": -1,
    "mixup": 0.0,
    "model": "",
    "name": "",
    "noise_snr": [10.0, 40.0],
    "on_truncated": "warn",
    "on_unreadable": "stop",
    "patience": 5,
    "peak_lr": 1e-4,
    "pooling": "mean",
    "protocol": "strict",
    "rare": "auto",
    "remat": "none",
    "rescale_float": False,
    "sampling": "all",
    "save_models": "auto",
    "scale": "standard",
    "seed": 0,
    "seeds": "",
    "split_seed": 0,
    "stopping": "auto",
    "systems": [],
    "target": "classes",
    "test_data": "",
    "validation_data": "",
    "validation_share": 0.1,
    "warmup_steps": 500,
    "weight_decay": 0.0,
}


def load(argument="donateacry"):
    return configuration.load(f"{CONFIG}:{argument}")


def test_every_value_is_the_one_that_run_folders_hold():
    found = configuration.as_dict(load())
    assert json.dumps(found) == json.dumps(EVERY_FIELD)  # types too: 1 and 1.0 are two values


def test_a_folds_recipe_has_the_papers_values():
    expected = fold_engine.FineTuningRecipe(
        epochs=50, batch_clips=16, peak_lr=1e-4, warmup_steps=500, patience=5, short_warmup=False, clip_norm=1.0,
        weight_decay=0.0, seed=0,
    )  # fmt: skip
    config = load()
    config.protocol = "paper"
    assert settings.fold_recipe(config) == expected


def test_patience_waits_for_the_warmup_in_strict_and_in_no_run_of_earlier_versions():
    config = load()
    assert settings.fold_recipe(config).short_warmup
    config.update(finetuning_recipe.EARLIER)
    assert not settings.fold_recipe(config).short_warmup
    config.protocol, config.stopping = "paper", "after_warmup"
    assert settings.fold_recipe(config).short_warmup


def test_the_argument_names_data_sets_or_the_six_tasks_of_the_paper():
    assert load("cnvve,vivae").datasets == ("cnvve", "vivae")
    six = ("asvp_esd", "asvp_esd_babies", "cnvve", "donateacry", "nonverbal_vocalization", "vivae")
    assert load("tasks").datasets == tuple(tasks.PAPER_TASKS) == six
    with pytest.raises(errors.InputError, match="name the data set: --config=finetune:donateacry"):
        configuration.load(str(CONFIG))


def stated():
    whole = load()
    return ml_collections.ConfigDict({name: whole[name] for name in finetuning_recipe.STATED})


def test_what_is_no_part_of_the_recipe_is_completed():
    c = stated()
    c.epochs, c.data_dir = 3, "elsewhere"
    found = configuration.as_dict(finetuning_recipe.complete(c))
    pairs = {"datasets": ("donateacry",), "systems": (), "noise_snr": (10.0, 40.0)}
    expected = {**EVERY_FIELD, "epochs": 3, "data_dir": "elsewhere", **pairs}
    assert found == expected


@pytest.mark.parametrize("name", finetuning_recipe.STATED)
def test_a_configuration_must_state_the_recipe(name):
    c = stated()
    del c[name]
    with pytest.raises(errors.InputError, match=f"does not state {name}: set it as configs/finetune.py does"):
        finetuning_recipe.complete(c)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("epochs", 0, "epochs is 0: set it to a value 1 or more"),
        ("folds", 1, "folds is 1: set it to a value 2 or more"),
        ("clip_norm", -1.0, "clip_norm is -1.0: set it to a value 0 or more"),
        ("peak_lr", 0.0, "peak_lr is 0.0: set it to a value above 0"),
        ("mask_share", 1.0, "mask_share is 1.0: set it to a value under 1"),
        ("mask_frames", 0, "mask_frames is 0: set it to a value 1 or more, or under 0"),
        ("mixup", -0.1, "mixup is -0.1: set it to a value 0 or more"),
        ("augment_speed", 0.6, "augment_speed is 0.6: set it to a value from 0 to 0.5"),
        ("augment_noise", 1.5, "augment_noise is 1.5: set it to a value from 0 to 1"),
        (
            "noise_snr",
            (20.0, 10.0),
            r"noise_snr is \(20.0, 10.0\): set it to a value of two numbers, the lower one first",
        ),
        ("sampling", "even", "sampling 'even' is none of all, balanced"),
        ("pooling", "max", "pooling 'max' is none of mean, attention"),
        ("validation_share", 0.6, "validation_share is 0.6: set it to a value above 0 and at most 0.5"),
        ("seed", 2**32, r"seed is 4294967296: set it to a value from 0 to 2\*\*32 - 1"),
        ("on_unreadable", "skip", "on_unreadable 'skip' is none of stop, drop"),
        ("group_copies", "yes", "group_copies 'yes' is none of auto, true, false"),
        ("rare", "drop", "rare 'drop' is none of auto, stop, keep"),
        ("how", "train", "how 'train' is none of auto, finetune, features, probe"),
        ("datasets", (), "datasets is empty: name at least one data set"),
        ("model", "", "there is no model to fine-tune"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_in_one_sentence(field, value, says):
    config = load()
    config.model = "voc2vec"
    finetuning_recipe.check(config)
    config[field] = value
    with pytest.raises(errors.InputError, match=says):
        finetuning_recipe.check(config)


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [
        ("epochs", (0, 1), None),
        ("folds", (1, 2), None),
        ("warmup_steps", (-1, 0), None),
        ("clip_norm", (-1e-9, 0.0), (1e9, math.inf)),
        ("augment_speed", (-1e-9, 0.0), (0.5, 0.5001)),
        ("augment_noise", (-1e-9, 0.0), (1.0, 1.0001)),
        ("peak_lr", (0.0, 1e-9), (1e9, math.inf)),
        ("max_seconds", (0.0, 1e-3), (1e9, math.inf)),
        ("lora_alpha", (0.0, 1e-3), (1e9, math.inf)),
        ("layer_decay", (0.0, 1e-3), (1.0, 1.0001)),
        ("mask_share", None, (0.999, 1.0)),
        ("validation_share", (0.0, 1e-3), (0.5, 0.5001)),
        ("seed", (-1, 0), (2**32 - 1, 2**32)),
        ("split_seed", (-1, 0), (2**32 - 1, 2**32)),
    ],
)
def test_limits_are_themselves_allowed_or_not_as_their_sentences_say(field, least, most):
    """The last value that is refused, the first that is taken; and of the largest the other way round."""
    config = load()
    config.model = "voc2vec"
    for refused, taken in filter(None, (least, most and most[::-1])):
        config[field] = taken
        finetuning_recipe.check(config)
        config[field] = refused
        with pytest.raises(errors.InputError, match=f"{field} is {re.escape(str(refused))}: set it to a value"):
            finetuning_recipe.check(config)


def test_copies_are_grouped_if_strict_and_never_in_the_papers_folds():
    config = load()
    assert finetuning_recipe.groups_copies(config)
    config.group_copies = "false"
    assert not finetuning_recipe.groups_copies(config)
    config.model, config.protocol, config.group_copies = "voc2vec", "paper", "auto"
    finetuning_recipe.check(config)
    assert not finetuning_recipe.groups_copies(config) and finetuning_recipe.EARLIER["group_copies"] == "false"
    config.group_copies = "true"
    with pytest.raises(errors.InputError, match="group_copies=true needs --config.protocol=strict: the paper's folds"):
        finetuning_recipe.check(config)
