"""The model families by name. Each module has `Config` and `Model`; one that can be pre-trained also has `loss_fn`."""

from voc2vec_jax.models import data2vec, emotion2vec, hubert, wav2vec2, wavlm, whisper

FAMILIES = {
    "wav2vec2": wav2vec2,
    "hubert": hubert,
    "wavlm": wavlm,
    "data2vec": data2vec,
    "emotion2vec": emotion2vec,
    "whisper": whisper,
}
