"""Recordings with headers as recorders, pipes and converters leave them, each with the samples that it holds."""

import dataclasses
import io
import struct

import numpy as np
import soundfile

RATE_HZ = 16_000
FRAMES = 5_001  # odd, so that 8-bit mono needs a pad byte
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_SCALES = {16: 1 << 15, 24: 1 << 23, 32: 1 << 31}


@dataclasses.dataclass(frozen=True)
class Case:
    """A file and what is right to read from it.

    `truth` is [frames, channels], None where the file holds no audio. `remarks` are the kinds to expect.
    """

    name: str
    data: bytes
    truth: np.ndarray | None
    remarks: tuple[str, ...] = ()
    rate_hz: int = RATE_HZ


def voice(channels: int = 1, frames: int = FRAMES, seed: int = 0) -> np.ndarray:
    """Noise of int16, [frames, channels], in which no sample looks like the name of a chunk."""
    return np.random.default_rng(seed).integers(-20_000, 20_000, (frames, channels)).astype("<i2")


def coded(samples: np.ndarray, bits: int = 16, tag: int = PCM, order: str = "<") -> bytes:
    """Samples of int16 as the bytes of a data chunk."""
    if tag == FLOAT:
        return (samples / 32768.0).astype(f"{order}f{bits // 8}").tobytes()
    if bits == 8:
        return ((samples.astype(np.int32) >> 8) + 128).astype(np.uint8).tobytes()
    wide = (samples.astype(np.int64) << (bits - 16)).astype(f"{order}i4" if bits > 16 else f"{order}i2")
    if bits == 24:
        trio = wide.view(np.uint8).reshape(-1, 4)
        return (trio[:, :3] if order == "<" else trio[:, 1:]).tobytes()
    return wide.tobytes()


def as_read(samples: np.ndarray, bits: int = 16) -> np.ndarray:
    """The float32 that those bytes stand for."""
    if bits == 8:
        return ((samples.astype(np.int32) >> 8) / 128.0).astype(np.float32)
    return (samples / 32768.0).astype(np.float32)


def chunk(name: bytes, body: bytes, size: int | None = None, order: str = "<", pad: bool = True) -> bytes:
    """A chunk; `size` is what its header says, where that is a lie."""
    size = len(body) if size is None else size
    return name + struct.pack(order + "I", size) + body + (b"\0" if pad and len(body) & 1 else b"")


def fmt(channels: int, bits: int = 16, tag: int = PCM, order: str = "<", extensible: bool = False) -> bytes:
    """A `fmt ` chunk."""
    width = channels * bits // 8
    layout = order + "HHIIHH"
    head = struct.pack(layout, EXTENSIBLE if extensible else tag, channels, RATE_HZ, RATE_HZ * width, width, bits)
    if extensible:
        head += struct.pack(order + "HHIH", 22, bits, 0, tag) + _GUID_TAIL
    return chunk(b"fmt ", head, order=order)


def form(*chunks: bytes, magic: bytes = b"RIFF", size: int | None = None, kind: bytes = b"WAVE") -> bytes:
    """A whole file of chunks."""
    body = kind + b"".join(chunks)
    order = ">" if magic in (b"RIFX", b"FORM") else "<"
    return magic + struct.pack(order + "I", len(body) if size is None else size) + body


def ds64(riff: int, data: int, frames: int) -> bytes:
    """The chunk that holds the long sizes of an RF64."""
    return chunk(b"ds64", struct.pack("<QQQI", riff, data, frames, 0))


LIST = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"Recorder\0\0"))
JUNK = bytes(range(200, 256)) * 3
UNKNOWN = {
    "0": 0, "7FFFFFFF": 0x7FFFFFFF, "7FFFFFFE": 0x7FFFFFFE, "7FFFFFDB": 0x7FFFFFDB, "7FFFF000": 0x7FFFF000,
    "7FFFEFDC": 0x7FFFEFDC, "80000000": 0x80000000, "80000024": 0x80000024, "FFFFFFFF": 0xFFFFFFFF,
    "FFFFFFFE": 0xFFFFFFFE, "FFFFFFDB": 0xFFFFFFDB, "FFFFFF00": 0xFFFFFF00, "FFFFF000": 0xFFFFF000,
}  # fmt: skip


def _sizes() -> list[Case]:
    samples = voice(2)
    body, truth = coded(samples), as_read(samples)
    cases = []
    for name, size in UNKNOWN.items():
        data = form(fmt(2), chunk(b"data", body, size), size=min(size + 36, 0xFFFFFFFF))
        cases.append(Case(f"wav data {name}", data, truth))
        data = form(fmt(2), LIST, chunk(b"data", body, size), size=0)
        cases.append(Case(f"wav LIST, data {name}, RIFF 0", data, truth))
    short, less = len(body) - 4_000, truth[:-1_000]
    return [
        *cases,
        Case("wav data 0, cut in a frame", form(fmt(2), chunk(b"data", body, 0))[:-3], truth[:-1]),
        Case("wav data 0, nothing behind", form(fmt(2), chunk(b"data", b"")), None),
        Case("wav data 0, LIST behind", form(fmt(2), chunk(b"data", b""), LIST), None),
        Case("wav data 0, silence", form(fmt(2), chunk(b"data", bytes(16_000), 0)), np.zeros((4_000, 2), np.float32)),
        Case("wav data FFFFFFFF, LIST behind", form(fmt(2), chunk(b"data", body, 0xFFFFFFFF), LIST), truth),
        Case("wav data 0, audio and LIST behind", form(fmt(2), chunk(b"data", body, 0), LIST), truth),
        Case("wav cut", form(fmt(2), chunk(b"data", body))[:-4_000], truth[:-1_000], ("truncated",)),
        Case("wav cut in a frame", form(fmt(2), chunk(b"data", body))[:-4_001], truth[:-1_001], ("truncated",)),
        Case("wav data 1 byte beyond", form(fmt(2), chunk(b"data", body, len(body) + 1)), truth, ("truncated",)),
        Case("wav data short, LIST behind", form(fmt(2), chunk(b"data", body[:short]), LIST), truth[:-1_000]),
        Case("wav data short, junk behind", form(fmt(2), chunk(b"data", body[:short])) + JUNK, less, ("length",)),
        Case("wav data short, audio behind", form(fmt(2), chunk(b"data", body, short)), truth[:-1_000], ("length",)),
        Case("wav, zeros behind", form(fmt(2), chunk(b"data", body)) + bytes(512), truth),
        Case("wav, a second wav behind", form(fmt(2), chunk(b"data", body)) * 2, truth, ("length",)),
        *[Case(f"wav RIFF {size:X}", form(fmt(2), chunk(b"data", body), LIST, size=size), truth)
          for size in (0, 4, 1_000, 0x7FFFFFFF, 0xFFFFFFFF)],
    ]  # fmt: skip


def _layouts() -> list[Case]:
    samples, mono = voice(2), voice(1)
    body, truth = coded(samples), as_read(samples)
    eight, truth8 = coded(mono, 8), as_read(mono, 8)
    odd = chunk(b"LIST", b"INFOISFT\3\0\0\0abc", pad=False)
    two = [fmt(2), chunk(b"data", body)]
    whole = 4 + len(b"".join(two)) + 36
    return [
        Case("wav LIST before and after", form(fmt(2), LIST, chunk(b"data", body), LIST), truth),
        Case("wav LIST before fmt", form(LIST, *two), truth),
        Case("wav data before fmt", form(*two[::-1]), truth),
        Case("wav LIST, data before fmt, LIST", form(LIST, *two[::-1], LIST), truth),
        Case("wav data 0 before fmt", form(chunk(b"data", body, 0), fmt(2)), truth),
        Case("wav without fmt", form(chunk(b"data", body)), None),
        Case("wav without data", form(fmt(2), LIST), None),
        Case("wav 8 bit odd, pad, LIST", form(fmt(1, 8), chunk(b"data", eight), LIST), truth8),
        Case("wav 8 bit odd, no pad, LIST", form(fmt(1, 8), chunk(b"data", eight, pad=False), LIST), truth8),
        Case("wav 8 bit odd, no pad", form(fmt(1, 8), chunk(b"data", eight, pad=False)), truth8),
        Case("wav odd LIST before, no pad", form(fmt(2), odd, chunk(b"data", body)), truth),
        Case("wav odd LIST before, pad", form(fmt(2), odd + b"\0", chunk(b"data", body)), truth),
        Case("wav two data chunks", form(*two, chunk(b"data", body)), truth, ("length",)),
        Case("rf64", form(ds64(whole, len(body), FRAMES), *two, magic=b"RF64"), truth),
        Case("rf64 data FFFFFFFF", _long(body, len(body), whole), truth),
        Case("bw64", _long(body, len(body), whole, b"BW64"), truth),
        Case("bw64, LIST behind", _long(body, len(body), whole, b"BW64") + LIST, truth),
        Case("rf64 ds64 0", _long(body, 0, 0), truth),
        Case("bw64 ds64 FFFFFFFFFFFFFFFF", _long(body, (1 << 64) - 1, (1 << 64) - 1, b"BW64"), truth),
        Case("rf64 ds64 beyond", _long(body, len(body) + 8_000, whole), truth, ("truncated",)),
        Case("rf64 ds64 short, junk", _long(body, len(body) - 4_000, whole), truth[:-1_000], ("length",)),
        Case("rf64 no ds64", form(fmt(2), chunk(b"data", body, 0xFFFFFFFF), magic=b"RF64", size=0xFFFFFFFF), truth),
        Case("bw64 no ds64", form(fmt(2), chunk(b"data", body, 0xFFFFFFFF), magic=b"BW64", size=0xFFFFFFFF), truth),
        Case("bw64 no ds64, right sizes", form(*two, magic=b"BW64"), truth),
        Case("rf64 no ds64, right sizes", form(*two, magic=b"RF64"), truth),
        Case("riff with ds64", form(ds64(whole, len(body), FRAMES), fmt(2), chunk(b"data", body, 0xFFFFFFFF)), truth),
    ]


def _long(body: bytes, data: int, riff: int, magic: bytes = b"RF64") -> bytes:
    return form(ds64(riff, data, FRAMES), fmt(2), chunk(b"data", body, 0xFFFFFFFF), magic=magic, size=0xFFFFFFFF)


_BLOCKS = {  # bytes and samples of what is decoded at once, as libsndfile writes it
    "ULAW": (1, 1), "ALAW": (1, 1), "IMA_ADPCM": (512, 1_017), "MS_ADPCM": (512, 1_012), "GSM610": (65, 320),
    "G721_32": (1, 2),
}  # fmt: skip


def _codings() -> list[Case]:
    cases = []
    for bits, tag in ((8, PCM), (24, PCM), (32, PCM), (32, FLOAT), (64, FLOAT)):
        for extensible in (False, True):
            samples = voice(2)
            body, truth = coded(samples, bits, tag), as_read(samples, bits)
            kind = f"{'float' if tag == FLOAT else 'pcm'}{bits}{' extensible' if extensible else ''}"
            head = fmt(2, bits, tag, extensible=extensible)
            cases.append(Case(f"wav {kind}", form(head, chunk(b"data", body)), truth))
            cases.append(Case(f"wav {kind} data 0", form(head, chunk(b"data", body, 0)), truth))
            cases.append(Case(f"wav {kind} data 7FFFFFFF", form(head, chunk(b"data", body, 0x7FFFFFFF)), truth))
    apart = chunk(b"fmt ", struct.pack("<HHIIHH", PCM, 2, RATE_HZ, 8 * RATE_HZ, 8, 24))
    samples = voice(2)
    cases.append(Case("wav pcm24 in 4 bytes", form(apart, chunk(b"data", coded(samples, 32))), as_read(samples)))
    samples = voice(1)
    for order, magic in (("<", b"RIFF"), (">", b"RIFX")):
        body = coded(samples, 16, order=order)
        for size in (None, 0, 0xFFFFFFFF):
            parts = fmt(1, order=order), chunk(b"data", body, size, order)
            cases.append(
                Case(f"{magic.decode().lower()} 16 bit data {size}", form(*parts, magic=magic), as_read(samples))
            )
    for subtype in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32"):
        file = io.BytesIO()
        rate = 8_000 if subtype in ("GSM610", "G721_32") else RATE_HZ
        soundfile.write(file, samples[:4_000], rate, format="WAV", subtype=subtype)
        whole = file.getvalue()
        truth = soundfile.read(io.BytesIO(whole), dtype="float32", always_2d=True)[0]
        if subtype == "GSM610":
            truth = truth[
                : -(-4_000 // 320) * 320
            ]  # blocks of 320; libsndfile reads the pad byte of an odd size as one
        at = whole.index(b"data")
        block, samples_each = _BLOCKS[subtype]
        if block > 1:
            cut = whole[: at + 8 + 3 * block + block // 2]
            cases.append(Case(f"wav {subtype} cut in a block", cut, truth[: 3 * samples_each], ("truncated",), rate))
        for size in (None, 0, 0x7FFFF000, 0xFFFFFFFF):
            data = whole if size is None else whole[: at + 4] + struct.pack("<I", size) + whole[at + 8 :]
            cases.append(Case(f"wav {subtype} data {size}", data, truth, rate_hz=rate))
    return cases


def _w64(body: bytes, data: int, riff: int) -> bytes:
    head = fmt(2)[8:]
    chunks = b"wave" + _W64_TAIL + b"fmt " + _W64_TAIL + struct.pack("<Q", 24 + len(head)) + head
    chunks += b"data" + _W64_TAIL + struct.pack("<Q", data) + body
    return b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + struct.pack("<Q", riff) + chunks


def _aiff(body: bytes, frames: int, ssnd: int | None, size: int | None = None, kind: bytes = b"AIFF", **more) -> bytes:
    rate = struct.pack(">HQ", 16383 + 13, RATE_HZ << 50)
    common = struct.pack(">HIH", 2, frames, 16) + rate + (b"NONE\0\0" if kind == b"AIFC" else b"")
    parts = [chunk(b"COMM", common, order=">")]
    if kind == b"AIFC":
        parts.insert(0, chunk(b"FVER", b"\xa2\x80\x51\x40", order=">"))
    sound = chunk(b"SSND", bytes(8) + body, ssnd, ">")
    parts.insert(0 if more.get("first") else len(parts), sound)
    return form(*parts, magic=b"FORM", size=size, kind=kind)


def _au(body: bytes, size: int, order: str = ">") -> bytes:
    return (b".snd" if order == ">" else b"dns.") + struct.pack(order + "5I", 24, size, 3, RATE_HZ, 2) + body


def _caf(body: bytes, size: int, extra: bytes = b"") -> bytes:
    desc = struct.pack(">dIIIIII", RATE_HZ, int.from_bytes(b"lpcm", "big"), 0, 4, 1, 2, 16)
    head = b"caff\0\1\0\0desc" + struct.pack(">q", len(desc)) + desc
    return head + b"data" + struct.pack(">q", size) + bytes(4) + body + extra


def _others() -> list[Case]:
    samples = voice(2)
    body, big, truth = coded(samples), coded(samples, order=">"), as_read(samples)
    n, whole = len(body), 40 + 24 + 16 + 24 + len(body)
    cases = [
        Case("w64", _w64(body, 24 + n, whole), truth),
        *[Case(f"w64 data {size:X}", _w64(body, size, size), truth)
          for size in (0, 24, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)],
        Case("w64 cut", _w64(body, 24 + n, whole)[:-400], truth[:-100], ("truncated",)),
        Case("w64 short, junk", _w64(body, 24 + n - 400, whole), truth[:-100], ("length",)),
    ]  # fmt: skip
    for kind in (b"AIFF", b"AIFC"):
        name = kind.decode().lower()
        cases += [
            Case(name, _aiff(big, FRAMES, None, kind=kind), truth),
            *[Case(f"{name} sizes {size:X}", _aiff(big, count, size, size, kind), truth)
              for size, count in ((0, 0), (8, 0), (0x7FFFFFFF, 0x7FFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF),
                                  (0x80000000, 0x1FFFFFF8))],
            Case(f"{name} frames 0", _aiff(big, 0, None, kind=kind), truth),
            Case(f"{name} FORM 0", _aiff(big, FRAMES, None, 0, kind), truth),
            Case(f"{name} SSND before COMM", _aiff(big, FRAMES, None, kind=kind, first=True), truth),
            Case(f"{name} cut", _aiff(big, FRAMES, None, kind=kind)[:-400], truth[:-100], ("truncated",)),
            Case(f"{name} fewer frames than bytes", _aiff(big, FRAMES - 100, None, kind=kind), truth, ("length",)),
            Case(f"{name} more frames than bytes", _aiff(big, FRAMES + 100, None, kind=kind), truth, ("truncated",)),
        ]  # fmt: skip
    for order, data in ((">", big), ("<", body)):
        cases += [Case(f"au{order} {size:X}", _au(data, size, order), truth)
                  for size in (n, 0xFFFFFFFF, 0, 0x7FFFFFFF, 0x7FFFF000)]  # fmt: skip
        cases.append(Case(f"au{order} cut", _au(data, n, order)[:-400], truth[:-100], ("truncated",)))
        cases.append(Case(f"au{order} short, junk", _au(data, n - 400, order), truth[:-100], ("length",)))
    free = b"free" + struct.pack(">q", 16) + bytes(16)
    cases += [
        Case("caf", _caf(big, n + 4), truth),
        Case("caf -1", _caf(big, -1), truth),
        Case("caf free behind", _caf(big, n + 4, free), truth),
        Case("caf 0", _caf(big, 0), truth),
        Case("caf 7FFF...", _caf(big, 0x7FFFFFFFFFFFFFFF), truth),
        Case("caf cut", _caf(big, n + 4)[:-400], truth[:-100], ("truncated",)),
        Case("caf short, junk", _caf(big, n + 4 - 400), truth[:-100], ("length",)),
    ]
    return cases


def flac(total: int | None, samples: np.ndarray, cut: int = 0) -> bytes:
    """A FLAC; `total` replaces the number of samples in its header, `cut` bytes are lost at its end."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format="FLAC")
    whole = bytearray(file.getvalue())
    if total is not None:
        whole[21] = (whole[21] & 0xF0) | (total >> 32)
        whole[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    return bytes(whole[: len(whole) - cut])


def _flacs() -> list[Case]:
    samples = voice(2, 30_001)
    truth = as_read(samples)
    last = 24_576  # of the samples in whole frames, once 20,000 bytes are lost
    other = flac(None, voice(2, 20_000, 1))
    tag = b"TAG" + bytes(125)
    silence = np.zeros((30_001, 1), "<i2")  # whose frames are of few bytes
    other_blocks = bytearray(flac(None, samples))
    other_blocks[8:12] = struct.pack(">HH", 4_608, 4_608)
    almost = bytes.fromhex("fff9c5a8e794b1") + bytes(200)  # from sample 30,001 on; its check sum is wrong
    return [
        *[Case(f"flac of silence, total {total}", flac(total, silence), as_read(silence)) for total in (None, 0)],
        Case("flac with another size of blocks in its header", bytes(other_blocks), truth),
        Case("flac", flac(None, samples), truth),
        Case("flac, ID3 before and after", b"ID3\4\0\0\0\0\1\1" + bytes(129) + flac(None, samples) + tag, truth),
        Case("short flac, ID3 before", b"ID3\4\0\0\0\0\1\1" + bytes(129) + flac(None, samples[:4_000]), truth[:4_000]),
        *[Case(f"flac total {total:X}", flac(total, samples), truth) for total in (0, (1 << 36) - 1)],
        Case("flac total 0, ID3 behind", flac(0, samples) + tag, truth),
        Case("flac total 0, junk behind", flac(0, samples) + JUNK, truth),
        Case("flac total 0, behind it what is almost a frame", flac(0, samples) + almost, truth),
        Case("flac, junk behind", flac(None, samples) + JUNK, truth),
        Case("flac total too large", flac(40_000, samples), truth, ("truncated",)),
        Case("flac total too small", flac(20_000, samples), truth, ("length",)),
        Case("flac cut", flac(None, samples, 20_000), truth[:last], ("truncated",)),
        Case("flac cut in the last frame", flac(None, samples, 1), truth[:28_672], ("truncated",)),
        Case("flac total 0, cut", flac(0, samples, 20_000), truth[:last], ("truncated",)),
        Case("flac, a second flac behind", flac(None, samples) + other, truth, ("length",)),
        Case("flac total 0, a second flac behind", flac(0, samples) + other, truth, ("length",)),
        Case("flac of one frame, total 0", flac(0, samples[:4_000]), truth[:4_000]),
    ]


def cases() -> list[Case]:
    """Every case, by kind of file."""
    return [*_sizes(), *_layouts(), *_codings(), *_others(), *_flacs()]
