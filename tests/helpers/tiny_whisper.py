"""Small Whisper models of transformers with random weights, and what they compute of audio."""

import numpy as np
import parity
import torch
import transformers

from voc2vec_jax.models import whisper

_NO_TEXT = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
_NO_TEXT |= {"begin_suppress_tokens": None, "vocab_size": 20}
_DECODER = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
SIZES = {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 3, "encoder_ffn_dim": 40}


def model(kind: str = "WhisperModel", **fields) -> torch.nn.Module:
    """A model of a class of transformers; `fields` of its configuration replace those of SIZES."""
    config = transformers.WhisperConfig(**{**_NO_TEXT, **_DECODER, **SIZES, **fields})
    return parity.random_model(getattr(transformers, kind), config)


def config(context: str = "padded", **fields) -> whisper.Config:
    """A small configuration of ours, for clips of at most .4 s."""
    sizes = {"mel_bands": 12, "positions": 20, "width": 24, "depth": 2, "heads": 3, "inner_width": 40}
    return whisper.Config(whisper.EncoderConfig(**{**sizes, **fields}, context=context))


def features(config, clips: list[np.ndarray], **options) -> torch.Tensor:
    """The input of a model with the WhisperConfig `config`, by transformers' own feature extractor."""
    # 50 positions a second
    extractor = transformers.WhisperFeatureExtractor(config.num_mel_bins, chunk_length=config.max_source_positions / 50)
    extractor.n_samples = config.max_source_positions * 320
    return extractor(clips, sampling_rate=16_000, return_tensors="pt", **options).input_features
