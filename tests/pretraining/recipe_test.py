"""Configurations: the paper's numbers, loss groups on any number of devices, and what is refused."""

import dataclasses
import json
import pathlib

import pytest
import recipes

from voc2vec_jax import errors, models
from voc2vec_jax.models import wav2vec2
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.runs import configuration

# Every field of voc125.py; of the others the fields that differ from it, null where they have none.
PINNED = json.loads(pathlib.Path(__file__).with_name("pinned_recipes.json").read_text())
ROOT_CONFIGS = ("configs/voc125.py", "configs/quickstart.py", "configs/voc125.py:small", "tests/helpers/tiny_config.py")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


@pytest.mark.parametrize("source", ROOT_CONFIGS)
def test_every_recipe_builds_a_model(source):
    config = configuration.load(source)
    family, model = pretraining_recipe.build_model(config)
    assert family is wav2vec2
    assert pretraining_recipe.loss_groups(config, 1)[0] >= 1
    assert model.min_samples <= config.crop_samples


@pytest.mark.parametrize("source", PINNED)
def test_a_recipe_is_the_one_that_run_folders_hold(source):
    """Field for field and to the type, as `config.json` has it: else runs of earlier versions could not resume."""
    first = PINNED["configs/voc125.py"]
    wanted = {name: value for name, value in {**first, **PINNED[source]}.items() if value is not None}
    found = dict(configuration.fields(configuration.load(source)))
    assert {name: json.dumps(value) for name, value in found.items()} == {
        name: json.dumps(value) for name, value in wanted.items()
    }


@pytest.mark.parametrize("words, seconds", [("one_gpu", 640.0), ("ls=some/model,two_gpus", 1280.0)])
@pytest.mark.parametrize("recipe", ["voc125", "voc125_hubert"])
def test_batches_for_few_gpus_differ_in_nothing_else_and_divide_over_them(recipe, words, seconds):
    whole, found = (configuration.load(f"configs/{recipe}.py{arg}") for arg in ("", f":{words}"))
    assert found.batch_seconds == seconds and found.init_from == ("some/model" if "=" in words else "")
    whole.batch_seconds, whole.init_from, whole.same_length_groups = found.batch_seconds, found.init_from, 1
    assert whole.to_dict() == found.to_dict()
    for devices in (1, 2):
        assert pretraining_recipe.loss_groups(found, devices) == (seconds / 80, seconds / 80 / devices)


def test_the_quickstart_is_the_tiny_model():
    quick, tiny = (configuration.load(f"configs/{name}") for name in ("quickstart.py", "voc125.py:tiny"))
    tiny.sets, tiny.total_steps = quick.sets, quick.total_steps
    assert quick.to_dict() == tiny.to_dict()


def test_a_recipe_that_leaves_out_what_it_must_state_is_refused():
    config = configuration.load("configs/voc125.py").unlock()
    del config.peak_lr, config.model.mask_share
    with pytest.raises(errors.InputError, match="does not state peak_lr, model.mask_share"):
        pretraining_recipe.complete(config)


def test_a_field_of_the_model_that_does_not_exist_is_refused():
    config = configuration.load("configs/voc125.py").unlock()
    config.model.encoder.depht = 3
    with pytest.raises(errors.InputError, match="model.encoder.depht is no field"):
        pretraining_recipe.complete(config)


def test_the_papers_recipe():
    config = configuration.load("configs/voc125.py")
    _, model = pretraining_recipe.build_model(config)
    assert model == wav2vec2.Config()
    assert len(config.sets) == 10
    assert (config.total_steps, config.warmup_share, config.peak_lr) == (400_000, 0.08, 5e-4)
    assert (config.crop_samples, config.clip_norm, config.weight_decay) == (160_000, 0.0, 0.01)
    assert pretraining_recipe.loss_groups(config, 1) == (64, 64)
    assert pretraining_recipe.loss_groups(config, 8) == (64, 8)


@pytest.mark.parametrize("start", ["ls", "as"])
def test_continued_recipes(start):
    config = configuration.load(f"configs/voc125.py:{start}=some/weights.pt")
    assert config.init_from == "some/weights.pt"
    with pytest.raises(errors.InputError, match="none of ls=SRC, as=SRC, one_gpu, two_gpus, small, tiny"):
        configuration.load("configs/voc125.py:lx=some")


def test_eight_heads_are_one_override_away():
    config = recipes.full()
    configuration.override(config, "model.encoder.heads", "8")
    assert pretraining_recipe.build_model(config)[1].encoder.heads == 8


def test_groups_that_do_not_divide_name_the_nearest_batch():
    config = recipes.full()
    config.batch_seconds = 800.0
    assert pretraining_recipe.loss_groups(config, 5) == (10, 2)
    with pytest.raises(errors.InputError, match="10 loss groups of 80 s, which 8 devices .* set batch_seconds=640"):
        pretraining_recipe.loss_groups(config, 8)


def test_groups_computed_at_once_share_a_length():
    config = recipes.full()
    config.groups_per_device = 4
    assert pretraining_recipe.loss_groups(config, 2) == (64, 8)
    config.groups_per_device = 8
    with pytest.raises(errors.InputError, match="8 does not divide the 4 loss groups .* set same_length_groups=8, or"):
        pretraining_recipe.loss_groups(config, 2)
    for field, value in (("same_length_groups", 0), ("bucket_samples", (160_000,))):
        changed = recipes.full()
        changed.groups_per_device, changed[field] = 8, value
        assert pretraining_recipe.loss_groups(changed, 2) == (64, 4), field


LIMITS = {
    "same_length_groups=-1": "same_length_groups is -1: set it to a value 0 or more",
    "groups_per_device=-1": "groups_per_device is -1: set it to a value 0 or more",
    "group_rows=-2": "group_rows is -2",
    "batch_seconds=inf": "batch_seconds is inf",
    "dtype=int8": "dtype 'int8' is none of auto, float32, bfloat16",
    "remat=most": "remat 'most' is none of auto, none, layer, products",
    "seed=-1": "seed is -1: set it to a value from 0 to 2",
    "seed=4294967296": "seed is 4294967296",
    "clip_norm=-1": "clip_norm is -1.0",
    "peak_lr=0": "peak_lr is 0.0: set it to a value above 0",
    "log_every_steps=0": "log_every_steps is 0",
    "workers=-1": "workers is -1",
    "adam_b1=1": "adam_b1 is 1.0: set it to a value at least 0 and under 1",
    "model.encoder.dropout=1": "model.encoder.dropout is 1.0",
    "model.encoder.depth=0": "model.encoder.depth is 0",
    "model.encoder.conv_kernels=10,0": "model.encoder.conv_kernels",
    "model.codebook_groups=0": "model.codebook_groups is 0",
    "model.negatives=0": "model.negatives is 0",
    "model.mask_share=12": "model.mask_share is 12.0",
    "model.mask_frames=0": "model.mask_frames is 0",
    "input=disk": "input 'disk' is none of stream, resident",
}


@pytest.mark.parametrize("text, message", LIMITS.items())
def test_a_value_that_makes_no_sense_is_one_sentence(text, message):
    config = recipes.full()
    pretraining_recipe.check(config)
    configuration.override(config, *text.split("="))
    with pytest.raises(errors.InputError, match=message):
        pretraining_recipe.check(config)


# field: the last value that is refused and the first that is taken; of the largest the other way round
ENDS = {
    "total_steps": ("0 1", None),
    "weight_decay": ("-1e-9 0", "1e9 inf"),
    "batch_seconds": ("0 80", "80000 inf"),
    "ema_decay": ("-1e-9 0", "0.999 1"),
    "model.encoder.dropout": ("-1e-9 0", "0.999 1"),
    "model.encoder.layerdrop": ("-1e-9 0", "1 1.001"),
    "peak_lr": ("0 1e-9", "1 1.001"),
    "model.gumbel_decay": ("0 1e-3", "1 1.001"),
    "seed": ("-1 0", "4294967295 4294967296"),
}


@pytest.mark.parametrize("field", ENDS)
def test_limits_are_themselves_allowed_or_not_as_their_sentences_say(field):
    config = recipes.full()
    least, most = ENDS[field]
    for refused, taken in [least.split(), *([most.split()[::-1]] if most else [])]:
        configuration.override(config, field, taken)
        pretraining_recipe.check(config)
        configuration.override(config, field, refused)
        with pytest.raises(errors.InputError, match=f"^{field} is .*: set it to a value"):
            pretraining_recipe.check(config)


BAD = {
    "crop_samples=3000": "crop_samples 3000 leaves clips too short to mask: set it to 4240",
    "model.encoder.heads=5": "heads 5 does not divide width 768",
    "model.encoder.positional_groups=7": "positional_groups 7",
    "model.encoder.conv_strides=5,2": "7, 7 and 2 entries",
    "model.codebook_groups=3": "codebook_groups 3 does not divide",
    "dtype=int8": "dtype 'int8' is none of float32, bfloat16",
    "remat=all": "remat 'all' is none of none, layer, products",
    "attention=flash": "attention 'flash' is none of auto, plain, xla, cudnn",
    "attention=xla": "attention 'xla' cannot drop weights",
    "model.encoder.conv_norm=batch": "conv_norm 'batch'",
    "family=hubrt": "config.family 'hubrt'",
}


@pytest.mark.parametrize("text, message", BAD.items())
def test_a_shape_that_does_not_fit_is_one_sentence(text, message):
    config = recipes.full()
    configuration.override(config, *text.split("="))
    with pytest.raises(errors.InputError, match=message):
        pretraining_recipe.build_model(config)


def test_every_field_of_the_model_can_be_overridden():
    config = recipes.full()
    fields = dict(configuration.fields(config))
    own = {field.name for field in dataclasses.fields(models.FAMILIES["wav2vec2"].Config)} - {"encoder"}
    assert {f"model.{name}" for name in own} <= set(fields)
