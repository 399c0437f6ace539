"""From recordings to arrays: decode, mix down, resample to 16 kHz, cut into segments, quantise.

Channels are mixed before resampling. Files are read in blocks, so that the memory needed is that of the result and not
that of the source.

`loading` opens a recording as `reading` says; `decoders` chooses `sndfile` or `ffmpeg` by what `sniffing` finds.
`wav` and `flac` find samples behind wrong headers, `ogg` the links of a chain; `joining` brings parts to one rate.
`packets` and `mpeg` tell what is odd about what FFmpeg decodes. `channels` mixes, `arrays` is for arrays of samples.
"""

from voc2vec_jax.audio.arrays import INT16_SCALE, RATE_HZ, SEGMENT_SAMPLES, from_int16, normalising, segments, to_int16
from voc2vec_jax.audio.channels import MOST_OVER, mix_down
from voc2vec_jax.audio.loading import SUFFIXES, load, load_stretch, seconds, stream
from voc2vec_jax.audio.reading import (
    CHANNELS,
    DEFAULT,
    LOWEST_RATE_HZ,
    ON_TRUNCATED,
    AudioError,
    AudioWarning,
    Reading,
    Remark,
    Told,
    check,
    spelt,
    summary,
)
from voc2vec_jax.audio.sndfile import MOST_FRAMES
from voc2vec_jax.audio.wav import part

__all__ = [
    "CHANNELS",
    "DEFAULT",
    "INT16_SCALE",
    "LOWEST_RATE_HZ",
    "MOST_FRAMES",
    "MOST_OVER",
    "ON_TRUNCATED",
    "RATE_HZ",
    "SEGMENT_SAMPLES",
    "SUFFIXES",
    "AudioError",
    "AudioWarning",
    "Reading",
    "Remark",
    "Told",
    "check",
    "from_int16",
    "load",
    "load_stretch",
    "mix_down",
    "normalising",
    "part",
    "seconds",
    "segments",
    "spelt",
    "stream",
    "summary",
    "to_int16",
]
