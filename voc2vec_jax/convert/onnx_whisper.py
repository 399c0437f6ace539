"""What is in front of Whisper's blocks, as a part of an ONNX graph: log-mel spectra, two convolutions, positions.

b = rows, s = samples, m = frames of the spectrum, n = mel bands, t = frames, d = width.
"""

import math

import numpy as np

from voc2vec_jax.convert import onnx_ops as ops
from voc2vec_jax.ops import log_mel


def stem(g: ops.Graph, e, p, audio: str, lengths: str) -> tuple[str, str, str]:
    """What enters the blocks [b, t, d], the frames of each row's own audio, and t.

    A runtime refuses audio with more frames than there are positions.
    """
    least = e.window_samples if e.pads else log_mel.LEAST_SAMPLES
    missing = g("Max", g("Sub", least, g.size(audio, 1)), 0)
    audio = g("Pad", audio, g("Concat", [0, 0, 0], missing, axis=0), 0.0)
    own = g("Div", g("Add", _spectra(g, lengths), 1), 2)
    counted = g("Expand", g.constant([e.window_samples]), g("Shape", lengths)) if e.pads else lengths
    mel = _log_mel(g, audio, counted, e.mel_bands)  # [b, n, m]
    x, frames = mel, g("Unsqueeze", g.floats(g.first(_spectra(g, counted), g.size(mel, 2))), [1])
    for k, stride in enumerate((1, 2)):
        # The first convolution makes frames past a row's own non-zero, and the second would reach one of them
        x = g("Mul", x, frames) if k else x
        x = ops.gelu(g, ops.conv(g, p["conv_stem"][f"conv_{k}"], x, kernel_shape=[3], strides=[stride], pads=[1, 1]))
    x = ops.transposed(g, x)
    t = g.size(x, 1)
    return g("Add", x, g("Slice", np.asarray(p["positions"]), [0], t, [0])), own, t


def _spectra(g, lengths) -> str:
    """The frames of the spectrum of each row; none of one that is too short to be mirrored."""
    enough = g("Cast", g("Less", g.constant(log_mel.LEAST_SAMPLES - 1), lengths), to=7)
    return g("Mul", g("Div", lengths, log_mel.HOP), enough)


def _log_mel(g, audio, lengths, bands) -> str:
    """[b, n, m], as `log_mel.log_mel` gives it transposed."""
    bins = log_mel.WINDOW // 2 + 1
    fourier = np.ascontiguousarray(log_mel.fourier().T[:, None])
    windows = g("Unsqueeze", _mirrored(g, audio, lengths), [1])
    spectra = g("Conv", windows, fourier, kernel_shape=[log_mel.WINDOW], strides=[log_mel.HOP])
    count = g("Div", g.size(audio, 1), log_mel.HOP)
    spectra = g("Slice", spectra, [0], count, [2])
    real, imaginary = g("Slice", spectra, [0], [bins], [1]), g("Slice", spectra, [bins], [2 * bins], [1])
    power = g("Add", g("Mul", real, real), g("Mul", imaginary, imaginary))
    mel = g("MatMul", np.ascontiguousarray(log_mel.mel_filters(bands).T), power)
    logs = g("Mul", g("Log", g("Max", mel, log_mel.LEAST_POWER)), 1 / math.log(10))
    valid = g("Unsqueeze", g.first(_spectra(g, lengths), count), [1])
    strongest = g("ReduceMax", g("Where", valid, logs, math.log10(log_mel.LEAST_POWER)), axes=[1, 2], keepdims=1)
    logs = g("Div", g("Add", g("Max", logs, g("Sub", strongest, log_mel.RANGE)), 4.0), 4.0)
    return g("Where", valid, logs, 0.0)


def _mirrored(g, audio, lengths) -> str:
    """Half a window of each row's mirror image before its first and behind its last sample, as in `log_mel`."""
    half, s = log_mel.WINDOW // 2, g.size(audio, 1)
    place = g("Abs", g("Sub", g.count_up(g("Add", s, 2 * half)), half))
    end = g("Unsqueeze", g("Sub", lengths, 1), [1])
    # Past the end by k: the sample that lies k before it
    place = g("Sub", end, g("Abs", g("Sub", end, place)))
    place = g("Max", g("Min", place, g("Sub", s, 1)), 0)
    return g("GatherElements", audio, place, axis=1)
