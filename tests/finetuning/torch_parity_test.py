"""The same weights, batches and schedule through transformers and here: the losses of every step agree."""

import dataclasses
import functools
import os

import jax
import numpy as np
import peft
import pytest
import tiny_learners
import torch
import transformers

from voc2vec_jax.convert import names, reader
from voc2vec_jax.datasets import resident
from voc2vec_jax.finetuning import adaptation, learners
from voc2vec_jax.finetuning import batches as fold_batches
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.models import lora

BASE = bool(os.environ.get("VOC2VEC_BASE"))  # the architecture at its own size: minutes instead of seconds
CLASSES, STEPS = 4, 20
LORA = lora.Config(rank=4, alpha=16.0)
WEIGHTS = np.array([0.5, 1.0, 2.0, 0.8], np.float32)


class Clips:
    """Noise of different loudness, as a task's clips."""

    def __init__(self, n: int, longest: int):
        rng = np.random.default_rng(0)
        self.samples = rng.integers(longest // 3, longest + 1, n).astype(np.int32)
        self.samples[0] = longest
        self.labels = rng.integers(0, CLASSES, n).astype(np.int32)
        scales = rng.uniform(300, 6000, n)
        self.audio = [(scale * rng.standard_normal(s)).astype(np.int16) for s, scale in zip(self.samples, scales)]

    def __len__(self):
        return len(self.samples)

    def read(self, rows):
        return [self.audio[row] for row in rows]


def peer(folder):
    """A randomly initialised model of the base architecture (group norm, post-LN), dropout off, saved to `folder`."""
    sizes = {} if BASE else dict(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, conv_dim=(24,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, classifier_proj_size=32,
    )  # fmt: skip
    dropouts = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout")
    config = transformers.Wav2Vec2Config(
        **sizes, **dict.fromkeys(dropouts, 0.0), layerdrop=0.0, apply_spec_augment=False, num_labels=CLASSES
    )
    torch.manual_seed(0)
    model = transformers.Wav2Vec2ForSequenceClassification(config)
    model.save_pretrained(folder)
    return model.train()


def with_adapters(model):
    """peft's adapters beside query and value; the head is trained in whole, everything else stands still.

    Begun from A and B that are not zero, so that both have gradients in the first step; also returns them by name.
    """
    kept, targets = ["projector", "classifier"], ["q_proj", "v_proj"]
    config = peft.LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=targets, modules_to_save=kept)
    adapted = peft.get_peft_model(model, config)
    found = {"query": {"a": [], "b": []}, "value": {"a": [], "b": []}}
    torch.manual_seed(1)
    for layer in model.wav2vec2.encoder.layers:
        for name, short in (("query", "q_proj"), ("value", "v_proj")):
            module = getattr(layer.attention, short)
            for part, weight in (("a", module.lora_A.default.weight), ("b", module.lora_B.default.weight)):
                torch.nn.init.normal_(weight, std=0.05)
                found[name][part].append(weight.detach().numpy().T.copy())
    return adapted, {name: {part: np.stack(x) for part, x in pair.items()} for name, pair in found.items()}


def their_losses(model, batches, clips, recipe, longest):
    """transformers' model in a plain torch loop, as the Trainer runs it; padding has no mask, as in the paper."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.peak_lr, weight_decay=0.0)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, recipe.warmup_steps, 100)
    criterion = torch.nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS))
    losses = []
    for rows in batches:
        rows = rows[rows >= 0]
        audio = np.zeros((len(rows), longest), np.float32)
        for i, row in enumerate(rows):
            audio[i, : clips.samples[row]] = clips.audio[row] / 32768
        audio = (audio - audio.mean(1, keepdims=True)) / np.sqrt(audio.var(1, keepdims=True) + 1e-7)
        loss = criterion(model(torch.tensor(audio)).logits, torch.tensor(clips.labels[rows], dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        return np.array(losses), model(torch.tensor(audio)).logits.numpy()


def our_losses(folder, batches, clips, recipe, longest, freeze=None, adapters=None):
    source = reader.read(folder)
    own = names.flatten({"encoder": source.params["encoder"]})
    frozen = tuple(sorted(path for path in own if freeze and path.startswith(freeze)))
    adapt = adaptation.Adaptation(frozen, LORA if adapters else lora.Config())
    learner = learners.Finetuner(
        "wav2vec2", source.config, dataclasses.replace(source.head), ((recipe.batch_clips, longest),),
        normalize=True, eps=1e-7, attend_padding=True, normalize_padding=True, augment=learners.SpecAugment(0.0),
        adapt=adapt,
    )  # fmt: skip
    engine = fold_engine.Engine(learner, recipe, 1, "map", jax.devices()[:1])
    kept = resident.Resident(clips, np.arange(len(clips)))
    data = {"blocks": kept.blocks, "block_start": kept.block_start, "samples": clips.samples, "labels": clips.labels}
    data["frozen"] = adaptation.only(source.params, frozen)
    initial = adaptation.without({name: source.params[name] for name in ("encoder", "head")}, frozen)
    initial |= {"lora": adapters} if adapters else {}
    start = jax.jit(functools.partial(fold_engine.start, learner, recipe), out_shardings=engine.replicated)
    state = engine.place(engine.empty(jax.eval_shape(start, 0, initial)), jax.numpy.int32(0), start(0, initial))
    fold = {"number": np.zeros(1, np.int32), "total_steps": np.full(1, 100, np.int32), "class_weights": WEIGHTS[None]}
    rows = engine.put(np.stack(batches)[None])
    fold, data = engine.put(fold), jax.device_put(data, engine.replicated)
    state, losses = engine.train(state, fold, rows, data)
    logits, _ = engine.outputs(state.params, fold, rows[:, -1:], data)
    return np.asarray(losses)[0], np.asarray(logits)[0, 0][batches[-1] >= 0]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft 0.21 asks for it
@pytest.mark.parametrize(
    "kind", ["whole", pytest.param("stem", marks=pytest.mark.slow), pytest.param("lora", marks=pytest.mark.slow)]
)
def test_losses_of_twenty_steps_are_those_of_transformers(tmp_path, kind):
    """Of a model trained in whole, with `freeze_feature_encoder`, and with peft's adapters; its last logits too."""
    longest = 8_000 if BASE else 6_000
    clips = Clips(45, longest)
    recipe = tiny_learners.recipe(batch_clips=16, warmup_steps=5, peak_lr=1e-4 if BASE else 1e-3)
    batches = []
    for epoch in range(7):  # the third batch of an epoch is not full
        batches += list(fold_batches.batches(np.arange(45), clips.samples, 16, stratified=False, key=(0, 0, epoch)))
    batches = batches[:STEPS]
    model, adapters = peer(tmp_path), None
    if kind == "stem":
        model.freeze_feature_encoder()
    if kind == "lora":
        model, adapters = with_adapters(model)
    theirs, their_logits = their_losses(model, batches, clips, recipe, longest)
    freeze = {"whole": None, "stem": adaptation.STEM, "lora": "encoder/"}[kind]
    ours, our_logits = our_losses(tmp_path, batches, clips, recipe, longest, freeze, adapters)
    difference = np.abs(ours - theirs) / theirs
    apart = np.abs(our_logits - their_logits).max() / np.abs(their_logits).max()
    print(f"{kind}: losses {theirs[0]:.4f} ... {theirs[-1]:.4f}, largest relative difference {difference.max():.1e}")
    print(f"logits after {STEPS} steps up to {np.abs(their_logits).max():.3f}, relative difference {apart:.1e}")
    assert theirs.max() - theirs.min() > 0.01
    assert difference.max() < 1e-3 and apart < 1e-3


@pytest.mark.parametrize("frames", [3, 9, 10, 24, 200])
def test_augmentation_masks_as_many_spans_as_transformers(frames):
    """Spans are counted as in `_compute_mask_indices`: from its share, at least two, at most as many as fit."""
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

    from voc2vec_jax.ops import masking

    t = 200
    keys = jax.random.split(jax.random.key(0), 400)
    mask = jax.jit(lambda k, f: masking.augmentation_mask(k, f, t, share=0.05, span=10, min_spans=2))
    ours = np.asarray(mask(keys, jax.numpy.full(400, frames)))
    assert not ours[:, frames:].any()
    if frames < 10:  # transformers refuses a sequence shorter than a span
        assert not ours.any()
        return
    np.random.seed(0)  # noqa: NPY002, transformers draws from it
    theirs = _compute_mask_indices((400, frames), 0.05, 10, min_masks=2)
    for statistic in (lambda m: m.sum(1).mean(), lambda m: (np.diff(m.astype(int), axis=1) == 1).sum(1).mean()):
        assert statistic(ours[:, :frames]) == pytest.approx(statistic(theirs), rel=0.08, abs=0.05)
    share = np.abs(ours[:, :frames].mean(0) - theirs.mean(0))
    assert share.max() < 0.15
