"""Model families by name: each module offers `Config`, `Model` and, where it can be pre-trained, `loss_fn`."""

from voc2vec_jax.models import data2vec, emotion2vec, hubert, wav2vec2, wavlm

FAMILIES = {
    "wav2vec2": wav2vec2,
    "hubert": hubert,
    "wavlm": wavlm,
    "data2vec": data2vec,
    "emotion2vec": emotion2vec,
}
