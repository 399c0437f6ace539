"""The decoder for a recording, chosen by what its bytes are and not by its name."""

import io

import soundfile

from voc2vec_jax.audio import ffmpeg, ogg, reading, sndfile, sniffing

Decoder = sndfile.Decoder | sndfile.Chain | ffmpeg.Decoder


def opened(file: io.IOBase, reporter: reading.Reporter) -> Decoder:
    """The decoder of an open file, checked as far as its header goes. AudioError where there is none.

    libsndfile decodes what it reads exactly (WAV, FLAC, AIFF, Ogg), FFmpeg the rest, and what libsndfile cannot open.
    """
    first = sniffing.head(file)
    if not first:
        raise reporter.error("is empty (zero bytes)")
    if reason := sniffing.refusal(first):
        raise reporter.error(reason)
    kind = sniffing.kind(first)
    if kind.by_ffmpeg:
        return ffmpeg.Decoder(file, reporter, kind.name)
    try:
        if kind.name == "Ogg":
            return _ogg(file, reporter)
        return sndfile.Decoder(file, reporter)
    except reading.AudioError as error:
        if not isinstance(error.__cause__, soundfile.LibsndfileError):
            raise
        try:
            return ffmpeg.Decoder(file, reporter, kind.name)
        except reading.AudioError as second:
            raise (error if kind.name else second) from error.__cause__


def _ogg(file: io.IOBase, reporter: reading.Reporter) -> Decoder:
    return sndfile.Chain(file, ogg.links(file), reporter)
