"""The collapse watch: what counts as a sign, and how long it must last."""

import pytest

from voc2vec_jax.models import wav2vec2
from voc2vec_jax.pretraining import collapse

CONFIG = wav2vec2.Config()
HEALTHY = {
    "code_perplexity": 300.0,
    "equal_negatives": 0.02,
    "accuracy": 0.4,
    "contrastive": 3.0,
    "masked_frames": 1000.0,
}
SICK = {
    "one code": ({"code_perplexity": 2.0}, "code perplexity 2.00 of 640"),
    "equal negatives": ({"equal_negatives": 0.97}, "97% of the negatives"),
    "trivial": ({"accuracy": 1.0, "contrastive": 0.0}, "accuracy 100.0% at 0.000 bits"),
    "no masks": ({"masked_frames": 0.0}, "no frame is masked"),
}


@pytest.mark.parametrize("change, text", SICK.values(), ids=SICK)
def test_signs(change, text):
    assert wav2vec2.collapse_signs(CONFIG, HEALTHY) == []
    (sign,) = wav2vec2.collapse_signs(CONFIG, {**HEALTHY, **change})
    assert text in sign


def test_a_good_model_is_no_collapse():
    assert wav2vec2.collapse_signs(CONFIG, {**HEALTHY, "accuracy": 0.999, "contrastive": 0.2}) == []


def test_said_once_an_episode_and_only_when_it_lasts():
    signs = []
    watcher = collapse.CollapseDetector(lambda row: ["codes"] if row["sick"] else [])
    sick = [True] * 19 + [False] + [True] * 50 + [False] + [True] * 20
    signs = [step for step, is_sick in enumerate(sick, 1) if watcher.see({"sick": is_sick})]
    assert signs == [40, 91]
