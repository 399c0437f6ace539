"""What a run says before it begins."""

import dataclasses
import math

import jax
import numpy as np

from voc2vec_jax import audio
from voc2vec_jax.finetuning import learners, settings
from voc2vec_jax.ops import masking
from voc2vec_jax.runs import logs


def say_masks(setting: settings.CrossValidationSetting) -> None:
    """Say what share of a clip's frames training hides, where it hides any."""
    learner = setting.trained.learner
    if isinstance(learner, learners.Finetuner) and learner.augment.share:
        logs.say(masks(learner, setting.task.samples))


def say_trained(setting: settings.CrossValidationSetting) -> None:
    """Say how much of a model is trained, where that is not all of it."""
    learner, frozen = setting.trained.learner, setting.trained.data.get("frozen")
    if frozen is None:
        return
    trained = jax.eval_shape(learner.init, jax.random.key(0))
    own, fixed = (sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) for tree in (trained, frozen))
    low = learner.adapt.lora
    how = f": adapters of rank {low.rank} ({', '.join(low.targets)}) and the head" if low.rank else ""
    logs.say(f"each fold trains {own:,} parameters{how}; {fixed:,} are frozen and shared by all folds")


def masks(learner: learners.Finetuner, samples: np.ndarray) -> str:
    """The shares of frames that SpecAugment hides of clips of so many `samples`, as its rule gives them."""
    rule = dataclasses.asdict(learner.augment)
    if learner.attend_padding:
        longest = learner.sub_batches[0][1]
        share = masking.augmentation_share(int(learner.config.encoder.maskable(longest)), **rule)
        seconds = longest / audio.RATE_HZ
        return f"SpecAugment hides {share:.1%} of the frames of a clip, all being padded to {seconds:.2f} s"
    frames = learner.config.encoder.maskable(np.sort(samples))
    share_of = {count: masking.augmentation_share(count, **rule) for count in sorted(set(frames.tolist()))}
    shares = np.array([share_of[count] for count in frames.tolist()])
    middle, most = len(shares) // 2, int(shares.argmax())
    seconds = np.sort(samples) / audio.RATE_HZ
    return (
        f"SpecAugment hides {shares[middle]:.1%} of the frames of a clip of median length ({seconds[middle]:.2f} s), "
        f"{shares.mean():.1%} on average and at most {shares[most]:.1%} ({seconds[most]:.2f} s)"
    )
