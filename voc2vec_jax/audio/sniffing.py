"""What a file is by its first bytes, whatever its name says: which decoder reads it, or why none does."""

import io
from typing import NamedTuple

HEAD_BYTES = 4096

_IMAGES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_OTHERS = {
    b"PK\x03\x04": "is a zip archive: unpack it",
    b"\x1f\x8b": "is a gzip archive: unpack it",
    b"7z\xbc\xaf": "is a 7z archive: unpack it",
    b"Rar!": "is a rar archive: unpack it",
    b"%PDF": "is a PDF, not a recording",
    b"MThd": "is MIDI: it holds notes, no sound",
    b"\x93NUMPY": "is an array of NumPy, not a recording",
    b"\x00\x05\x16\x07": "is a file of macOS that lies beside the recording (AppleDouble): leave it out",
    b"version https://git-lfs": "is a pointer of Git LFS: fetch the recording itself with `git lfs pull`",
    b"#!SILK": "is a SILK voice message, which is not read: convert it",
    b"\x02#!SILK": "is a SILK voice message, which is not read: convert it",
}
_PLAYLISTS = (b"#EXTM3U", b"[playlist]", b"ffconcat", b"v=0", b"<asx", b"<mpd", b"<smil")
_ASF = b"\x30\x26\xb2\x75"
_ASF_LOCKS = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),  # the content encryption object
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),  # the extended one
)
_PICTURES_IN_MP4 = (b"heic", b"heix", b"mif1", b"msf1", b"avif")
_WAV_TAGS_OF_FFMPEG = (0x50, 0x55, 0xFF, 0x160, 0x161, 0x162, 0x163, 0x1600, 0x1601, 0x2000)  # MPEG, WMA, AAC, AC-3


class Kind(NamedTuple):
    """The name of a format, and whether FFmpeg rather than libsndfile decodes it."""

    name: str
    by_ffmpeg: bool


_LIBSNDFILE = {b"fLaC": "FLAC", b".snd": "AU", b"dns.": "AU", b"caff": "CAF", b"riff": "W64", b"RIFX": "WAV"}
_FFMPEG = {
    b"\x1a\x45\xdf\xa3": "WebM or Matroska",
    _ASF: "WMA",
    b"#!AMR": "AMR",
    b"ID3": "MP3",
    b"MAC ": "APE",
    b"wvpk": "WavPack",
    b"TTA1": "TTA",
    b".RMF": "RealMedia",
    b"FLV": "Flash video",
    b"MPCK": "Musepack",
    b"MP+": "Musepack",
    b"\x0b\x77": "AC-3",
    b"\x00\x00\x01\xba": "MPEG video",
}


def head(file: io.IOBase) -> bytes:
    """The first bytes of an open file, behind a tag where FLAC has one; afterwards it stands at its beginning."""
    file.seek(0)
    found = file.read(HEAD_BYTES)
    if found[:3] == b"ID3" and len(found) >= 10:
        file.seek(10 + sum((byte & 0x7F) << 7 * (3 - k) for k, byte in enumerate(found[6:10])))
        behind = file.read(HEAD_BYTES)
        found = behind if behind[:4] == b"fLaC" else found
    file.seek(0)
    return found


def kind(first: bytes) -> Kind:
    """The format that begins with these bytes; its name is "" when it is not recognised."""
    if first[:4] in (b"RIFF", b"RF64", b"BW64") and first[8:12] == b"WAVE":
        return Kind("WAV", _wav_tag(first) in _WAV_TAGS_OF_FFMPEG)
    if first[:4] == b"RIFF" and first[8:11] == b"AVI":
        return Kind("AVI", True)
    if first[:4] == b"FORM":
        return Kind("AIFF", False)
    if first[:4] == b"OggS":
        return Kind("Ogg", not any(codec in first[:256] for codec in (b"\x01vorbis", b"OpusHead")))
    if first[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return Kind("MP4", True)
    for known, by_ffmpeg in ((_LIBSNDFILE, False), (_FFMPEG, True)):
        for magic, name in known.items():
            if first.startswith(magic):
                return Kind(name, by_ffmpeg)
    if first[:1] == b"\xff" and first[1:2] >= b"\xe0" and not _is_utf16(first):
        return Kind("AAC" if first[1] & 0xF6 == 0xF0 else "MP3", True)
    return Kind("", False)


def refusal(first: bytes) -> str | None:
    """Why what begins with these bytes is no recording, in a few words; None if it may be one."""
    for magic, words in _OTHERS.items():
        if first.startswith(magic):
            return words
    for magic, name in _IMAGES.items():
        if first.startswith(magic):
            return f"is an image ({name}), not a recording"
    if first[4:8] == b"ftyp" and first[8:12] in _PICTURES_IN_MP4:
        return "is an image (HEIC or AVIF), not a recording"
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return "is an image (WebP), not a recording"
    if first[:4] == _ASF and any(guid in first for guid in _ASF_LOCKS):
        return "is WMA locked by DRM: give a copy without the lock"
    return None if kind(first).name else _text(first)


def _text(first: bytes) -> str | None:
    """What kind of text it is; None if it is none."""
    if _is_utf16(first):
        return "is text, not a recording"
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in first) or not first.strip():
        return None
    try:
        first.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        if len(first) - error.start > 3:  # the last character may be cut
            return None
    start = first.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(tuple(word.lower() for word in _PLAYLISTS)):
        return "is a playlist, which names recordings elsewhere: give the recordings themselves"
    if b"<html" in start or start.startswith(b"<!doctype html"):
        return "is HTML (a download page?), not a recording: download it again"
    known = start.startswith(b"nist_1a")  # of speech corpora, with a header in letters
    return None if known else "is text, not a recording"


def _is_utf16(first: bytes) -> bool:
    """Whether it is text with a byte order mark, which a frame of MPEG may resemble: every other byte is mostly 0."""
    if first[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return False
    letters, others = first[2::2], first[3::2]
    if first[:1] == b"\xfe":
        letters, others = others, letters
    return 2 * others.count(0) > len(others) and not letters.count(0)


def _wav_tag(first: bytes) -> int:
    """The number of the codec in the header of a wav file; 1 (PCM) where it is not found."""
    at = first.find(b"fmt ", 12)
    return int.from_bytes(first[at + 8 : at + 10], "little") if 0 <= at <= len(first) - 10 else 1
