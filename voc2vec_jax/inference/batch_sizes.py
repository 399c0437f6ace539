"""How much audio is computed at once, and what one more compiled shape may cost, by platform."""

from typing import Any

from voc2vec_jax import audio
from voc2vec_jax.models import flops

BATCH_SECONDS = {"cpu": 64.0}  # audio that `embed` computes at once
BATCH_SECONDS_ELSEWHERE = 512.0
# What one more shape costs: the operations that could be done while it compiles. Orders of magnitude will do.
COMPILE_SECONDS = {"cpu": 3.0}  # 1.9 s per shape; a new length brings one or two numbers of rows
COMPILE_SECONDS_ELSEWHERE = 6.0
OPERATIONS_PER_SECOND = {"cpu": 1e11}
OPERATIONS_PER_SECOND_ELSEWHERE = 1e14


def batch_seconds(platform: str) -> float:
    """Seconds of audio in a batch of `Model.embed` on a platform."""
    return BATCH_SECONDS.get(platform, BATCH_SECONDS_ELSEWHERE)


def shape_seconds(config: Any, platform: str) -> float:
    """Seconds of audio that a new shape must save, for a family's model on a platform."""
    operations = sum(flops.forward(config, 10 * audio.RATE_HZ).values()) / 10
    rate = OPERATIONS_PER_SECOND.get(platform, OPERATIONS_PER_SECOND_ELSEWHERE)
    return COMPILE_SECONDS.get(platform, COMPILE_SECONDS_ELSEWHERE) * rate / operations
