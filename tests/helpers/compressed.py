"""Recordings in compressed formats, made with FFmpeg, and what is right to read from them."""

import dataclasses
import fractions
import io
import struct

import av
import numpy as np

MP3_FRAME = {3: 1152, 2: 576, 0: 576}  # samples a frame of layer III holds, by the bits of the MPEG version
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBITS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBITS[0] = _KBITS[2]


def voice(rate_hz: int, channels: int = 1, seconds: float = 1.3, seed: int = 0) -> np.ndarray:
    """[channels, samples] float32: a gliding tone with pauses and noise, so that bit rates vary."""
    t = np.arange(round(rate_hz * seconds)) / rate_hz
    loud = 0.05 + 0.6 * (np.sin(2 * np.pi * 2.1 * t + seed) > -0.2)
    noise = np.random.default_rng(seed).normal(size=len(t)) * np.clip(np.sin(2 * np.pi * 1.7 * t), 0, 0.2)
    wave = loud * (0.6 * np.sin(2 * np.pi * (200 + 90 * seed + 150 * t) * t) + noise)
    return np.stack([wave * 0.9, wave * 0.5][:channels]).astype(np.float32)


def encoded(wave: np.ndarray, rate_hz: int, codec: str, container: str, quality: int | None = None, **options) -> bytes:
    """A file with the samples [channels, samples]; `quality` asks for a varying bit rate, `options` go to the codec.

    `kbits` is its bit rate, `format` its samples, `mux` a dictionary of options of the container.
    """
    file, layout = io.BytesIO(), ("mono", "stereo")[len(wave) - 1]
    kbits, samples, mux = options.pop("kbits", None), options.pop("format", None), options.pop("mux", {})
    with av.open(file, "w", format=container, options=mux) as out:
        stream = out.add_stream(codec, rate=rate_hz, layout=layout)
        if samples:
            stream.format = samples
        if kbits:
            stream.bit_rate = 1000 * kbits
        if quality is not None:
            options |= {"flags": "+qscale", "global_quality": str(118 * quality)}
        stream.options = {name: str(value) for name, value in options.items()}
        stream.codec_context.open()
        context = stream.codec_context
        fitted = av.AudioResampler(context.format, context.layout, rate_hz, frame_size=context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, fractions.Fraction(1, rate_hz)
        for part in (*fitted.resample(frame), *fitted.resample(None)):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return file.getvalue()


def mp3(wave: np.ndarray, rate_hz: int, tag: bool = True, **options) -> bytes:
    """An MP3 of frames alone, the first of them a tag with the length where `tag` says so."""
    mux = {"id3v2_version": "0", "write_xing": str(int(tag))}
    return encoded(wave, rate_hz, "libmp3lame", "mp3", mux=mux, **options)


def mp3_samples(data: bytes) -> int:
    """How many samples the frames of an MP3 without a tag hold, counted by walking over their headers."""
    at = samples = 0
    while at < len(data):
        header = struct.unpack_from(">I", data, at)[0]
        assert header >> 21 == 0x7FF
        version, kbits, rate = header >> 19 & 3, header >> 12 & 15, header >> 10 & 3
        bits_a_second, rate_hz = 1000 * _KBITS[version][kbits], _RATES_HZ[version][rate]
        at += MP3_FRAME[version] // 8 * bits_a_second // rate_hz + (header >> 9 & 1)
        samples += MP3_FRAME[version]
    return samples


def id3v2(padding: int = 300) -> bytes:
    """A tag as it stands before an MP3."""
    body = b"TIT2" + struct.pack(">I", 9) + b"\0\0\0fixture1" + bytes(padding)
    return b"ID3\3\0\0" + bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0)) + body


def id3v1() -> bytes:
    """A tag as it stands behind an MP3."""
    return b"TAG" + b"title".ljust(30, b"\0") * 3 + b"2020" + bytes(30) + b"\x0c"


def ape(value: int = 5) -> bytes:
    """A tag of APE with a value of so many bytes."""
    item = struct.pack("<II", value, 0) + b"Title\0" + b"\xaa" * value
    ends = [
        b"APETAGEX" + struct.pack("<IIII", 2000, 32 + len(item), 1, flags) + bytes(8)
        for flags in (0xA0000000, 0x80000000)
    ]
    return ends[0] + item + ends[1]


def with_frames(data: bytes, frames: int) -> bytes:
    """An MP3 whose tag gives another number of frames."""
    at = max(data.find(b"Xing"), data.find(b"Info"))
    return data[: at + 8] + struct.pack(">I", frames) + data[at + 12 :]


_FRAME = MP3_FRAME[3] / 44_100  # s


@dataclasses.dataclass(frozen=True)
class Case:
    """A recording: the seconds that it holds, its samples where they are known, the remarks to expect.

    `within`: how far its length may be off (s): a frame of its coding where files were cut or joined.
    """

    name: str
    data: bytes
    seconds: float
    wave: np.ndarray | None = None
    remarks: tuple[str, ...] = ()
    within: float = 1e-4


def _tagged(name: str, rate_hz: int, channels: int, before: bytes = b"", after: bytes = b"", **options) -> Case:
    wave = voice(rate_hz, channels)
    return Case(name, before + mp3(wave, rate_hz, **options) + after, wave.shape[1] / rate_hz, wave)


def _untagged(name: str, rate_hz: int, channels: int, before: bytes = b"", after: bytes = b"", **options) -> Case:
    data = mp3(voice(rate_hz, channels), rate_hz, tag=False, **options)
    return Case(name, before + data + after, mp3_samples(data) / rate_hz)


def mp3_cases() -> list[Case]:
    """MP3s as recorders, converters and copies leave them."""
    stereo, mono = voice(44_100, 2), voice(44_100, 1)
    tagged, plain = mp3(stereo, 44_100, quality=2), mp3(stereo, 44_100, tag=False, kbits=128)
    other = mp3(voice(22_050, 2, seed=3), 22_050, tag=False, kbits=64)
    plain_seconds, other_seconds = mp3_samples(plain) / 44_100, mp3_samples(other) / 22_050
    # Of a second file in a row, the frame of its tag is silence, and the delay and padding of its encoder are audio
    second = mp3(mono, 44_100, kbits=64)
    joined = mono.shape[1] / 44_100 + mp3_samples(second) / 44_100
    half = len(plain) // 2 + 60
    junk = bytes(np.random.default_rng(1).integers(0, 250, 3_000, dtype=np.uint8))
    hole = plain[: len(plain) // 3] + bytes(4_000) + plain[len(plain) // 3 + 4_000 :]
    return [
        _tagged("44.1 kHz stereo, constant rate", 44_100, 2, kbits=128),
        _untagged("44.1 kHz stereo, constant rate, no tag", 44_100, 2, kbits=128),
        _untagged("44.1 kHz mono, constant rate, no tag", 44_100, 1, kbits=64),
        _tagged("44.1 kHz stereo, varying rate", 44_100, 2, quality=2),
        _untagged("44.1 kHz stereo, varying rate, no tag", 44_100, 2, quality=2),
        _tagged("44.1 kHz mono, varying rate", 44_100, 1, quality=6),
        _untagged("44.1 kHz mono, varying rate, no tag", 44_100, 1, quality=6),
        _tagged("48 kHz joint stereo", 48_000, 2, kbits=320, joint_stereo=1),
        _untagged("48 kHz plain stereo, no tag", 48_000, 2, kbits=192, joint_stereo=0),
        _untagged("32 kHz mono, varying rate, no tag", 32_000, 1, quality=5),
        dataclasses.replace(_tagged("8 kHz mono", 8_000, 1, kbits=16), within=0.072),  # its tag gives less padding
        _untagged("8 kHz stereo, no tag", 8_000, 2, kbits=16),
        _untagged("16 kHz mono, varying rate, no tag", 16_000, 1, quality=5),
        _tagged("11 kHz mono", 11_025, 1, kbits=32),
        _tagged("22 kHz stereo, varying rate", 22_050, 2, quality=4),
        _untagged("24 kHz mono, no tag", 24_000, 1, kbits=64),
        _tagged("ID3v2 before", 44_100, 2, before=id3v2(), kbits=128),
        _untagged("APE and ID3v1 behind, no tag", 44_100, 2, after=ape() + id3v1(), kbits=128),
        _untagged("a picture in an APE tag behind", 44_100, 1, after=ape(60_000), kbits=64),
        _untagged("lyrics behind, no tag", 44_100, 1, after=b"LYRICSBEGIN" + b"la " * 999 + b"LYRICS200", kbits=64),
        _tagged("two ID3v2 before, ID3v1 behind", 44_100, 1, before=id3v2() + id3v2(70_000), after=id3v1(), quality=4),
        _untagged("junk before, no tag", 44_100, 1, before=junk, kbits=64),
        dataclasses.replace(_untagged("junk behind", 44_100, 1, after=junk, kbits=64), remarks=("length",)),
        Case("joined, each with a tag", second + second, joined, None, ("length",), _FRAME),
        Case("joined, no tags", plain + plain, 2 * plain_seconds),
        Case(
            "joined, another rate and channels",
            second + other,
            mono.shape[1] / 44_100 + other_seconds,
            None,
            ("length", "joined"),
            _FRAME,
        ),
        Case("cut, tag", tagged[: len(tagged) // 2], 0.65, None, ("truncated",), _FRAME),
        Case("cut, no tag", plain[:half], half / len(plain) * plain_seconds, None, ("truncated",), _FRAME),
        Case("the tag promises more", with_frames(tagged, 500), 1.32, None, ("truncated",), _FRAME),
        Case("the tag promises less", with_frames(tagged, 20), 1.3, None, ("length",)),
        Case("a hole", hole, plain_seconds * (1 - 4_000 / len(plain)), None, ("damaged",), 3 * _FRAME),
        Case("zeros behind", plain + bytes(5_000), plain_seconds, None, ("truncated",)),
    ]


def phone_cases() -> dict[str, Case]:
    """What phones, messengers and browsers record, by the names of their files."""
    made = {}
    for name, rate_hz, channels, codec, container, within, options in (
        ("memo.m4a", 44_100, 2, "aac", "ipod", 1e-4, {"kbits": 128}),
        ("low.m4a", 16_000, 1, "aac", "ipod", 1e-4, {"kbits": 32}),
        ("lossless.m4a", 44_100, 2, "alac", "ipod", 1e-4, {"format": "s16p"}),
        ("pieces.mp4", 44_100, 2, "aac", "mp4", 1030 / 44_100, {"mux": {"movflags": "frag_keyframe+empty_moov"}}),
        ("radio.aac", 44_100, 2, "aac", "adts", 2 * 1024 / 44_100, {"kbits": 128}),
        ("voice.3gp", 8_000, 1, "libopencore_amrnb", "3gp", 1e-3, {"kbits": 12.2}),
        ("voice.amr", 8_000, 1, "libopencore_amrnb", "amr", 161 / 8_000, {"kbits": 12.2}),
        ("note.opus", 48_000, 1, "libopus", "opus", 1e-4, {"kbits": 32}),
        ("browser.webm", 48_000, 2, "libopus", "webm", 1e-3, {"kbits": 64}),
        ("opus.mp4", 48_000, 1, "libopus", "mp4", 1e-4, {"kbits": 64}),
        ("plain.mka", 44_100, 2, "pcm_s16le", "matroska", 1e-4, {}),
        ("lossless.mka", 44_100, 1, "flac", "matroska", 1e-4, {"format": "s16"}),
        ("old.wma", 44_100, 2, "wmav2", "asf", 2 * 2048 / 44_100, {"kbits": 128}),
        ("pack.wv", 44_100, 2, "wavpack", "wv", 1e-4, {"format": "s16p"}),
        ("film.mov", 44_100, 1, "pcm_s16be", "mov", 1e-4, {}),
        ("player.wav", 44_100, 2, "libmp3lame", "wav", 2 * 1152 / 44_100, {"kbits": 128}),
        ("call.wav", 8_000, 1, "g726", "wav", 1e-3, {"kbits": 32}),
        ("flac.oga", 44_100, 1, "flac", "oga", 1e-4, {"format": "s16"}),
    ):
        wave = voice(rate_hz, channels)
        data = encoded(wave, rate_hz, codec, container, **options)
        made[name] = Case(name, data, wave.shape[1] / rate_hz, wave if within < 1e-3 else None, within=within)
    return made


def remuxed(data: bytes, container: str) -> bytes:
    """The packets of a recording in another container."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=container) as out:
        track = source.streams.audio[0]
        copy = out.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    return file.getvalue()
