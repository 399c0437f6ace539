"""Model families by name: each module offers `Config`, `Model` and, where it can be pre-trained, `loss_fn`."""

from voc2vec_jax.models import wav2vec2

FAMILIES = {"wav2vec2": wav2vec2}
