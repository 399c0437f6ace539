"""Clips as MP3, small enough for a page that is mailed; every browser plays it."""

import io
from collections.abc import Callable, Iterable

import av
import numpy as np
from jaxtyping import Int16

from voc2vec_jax import audio

BITS_PER_SECOND = 32_000  # of 16 kHz mono, at which voices stay clear
BASE64 = 4 / 3  # bytes of a page for a byte of sound


def mp3(clip: Int16[np.ndarray, "s"]) -> bytes:
    """A clip at 16 kHz as MP3."""
    data = io.BytesIO()
    with av.open(data, "w", format="mp3") as file:
        stream = file.add_stream("libmp3lame", rate=audio.RATE_HZ, layout="mono")
        stream.bit_rate = BITS_PER_SECOND
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(clip)[None], format="s16p", layout="mono")
        frame.sample_rate = audio.RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return data.getvalue()


def packed(
    wanted: Iterable[tuple[int, int]], read: Callable[[int], Int16[np.ndarray, "s"]], most_bytes: float
) -> dict[int, bytes]:
    """The MP3 of clips, `read(row)`, as many as fit into `most_bytes` of a page, the first ones first.

    `wanted` holds (row, how often the page holds the clip). One that does not fit is passed over for shorter ones.
    """
    found: dict[int, bytes] = {}
    for row, copies in wanted:
        clip = read(row)
        factor = copies * BASE64
        if len(clip) / audio.RATE_HZ * BITS_PER_SECOND / 8 * factor > most_bytes:
            continue
        sound = mp3(clip)
        if len(sound) * factor <= most_bytes:
            found[row] = sound
            most_bytes -= len(sound) * factor
    return found
