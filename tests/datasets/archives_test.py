"""Archives made to fill a memory or a disk, and archives that are no archives: refused in a sentence, within limits."""

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import soundfile

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import trees

BOMB_BYTES = 10_000_000
PEAK_BYTES = 6e6


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    """Those of the library, made small."""
    monkeypatch.setattr(trees, "MOST_BYTES", 1 << 22)
    monkeypatch.setattr(trees, "MOST_MEMBERS", 1_000)
    monkeypatch.setattr(trees, "IN_MEMORY_BYTES", 1 << 20)


def recording():
    data = io.BytesIO()
    soundfile.write(data, np.sin(np.arange(16_000) / 5) * 0.3, 16_000, format="WAV", subtype="PCM_16")
    return data.getvalue()


WAV = recording()
LENGTH = 16_000


def a_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for name, data in members.items():
            with archive.open(name, "w") as file:
                for block in [data] if isinstance(data, bytes) else data:
                    file.write(block)
    return path


def zeros(count):
    return (bytes(1_000_000) for _ in range(count // 1_000_000))


def patched(path, signature, offset, value):
    """The archive with other bytes in the first record of this kind."""
    data = bytearray(path.read_bytes())
    at = data.index(signature) + offset
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


def a_tar(path, *parts):
    """A tar archive of parts as they are, between two whole recordings."""
    whole = header("a/x.wav", len(WAV)) + WAV + bytes(-len(WAV) % 512)
    path.write_bytes(whole + b"".join(parts) + whole + bytes(10_240))
    return path


def header(name, size, kind=None, **fields):
    member = tarfile.TarInfo(name)
    member.size = size
    data = bytearray(member.tobuf())
    if kind:
        data[156:157] = kind
    for at, value in {int(key[1:]): value for key, value in fields.items()}.items():
        data[at : at + len(value)] = value
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


def overlapping(path, count=200):
    """A zip whose directory names one deflated body many times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = bytes(2_000_000)
    packed = packer.compress(body) + packer.flush()
    sizes = struct.pack("<III", zlib.crc32(body), len(packed), len(body))
    local = struct.pack("<IHHHHH", 0x04034B50, 20, 0, 8, 0, 33) + sizes + struct.pack("<HH", 7, 0) + b"000.wav" + packed
    entry = (
        struct.pack("<IHHHHHH", 0x02014B50, 20, 20, 0, 8, 0, 33) + sizes + struct.pack("<HHHHHII", 7, 0, 0, 0, 0, 0, 0)
    )
    listed = b"".join(entry + b"%03d.wav" % number for number in range(count))
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(listed), len(local), 0)
    path.write_bytes(local + listed + end)
    return path


def gzipped_bomb(path):
    with gzip.open(path, "wb", 1) as file:
        file.write(header("a/x.wav", BOMB_BYTES))
        for block in zeros(BOMB_BYTES):
            file.write(block)
    return path


REFUSED = {
    "bomb.zip": (lambda p: a_zip(p, {"a.wav": zeros(BOMB_BYTES)}), "it expands to 10,000,000 bytes or more"),
    "overlapping.zip": (overlapping, "it expands to 400,000,000 bytes or more"),
    "bomb.tar.gz": (gzipped_bomb, r"it expands to \d,\d+,\d+ bytes or more"),
    "negative.tar": (
        lambda p: a_tar(p, header("n.wav", 0, s124=b"\xff" * 11 + b"\xfe")),
        "its members do not follow each other",
    ),
    "claims.tar": (lambda p: a_tar(p, header("n.wav", 0, s124=b"77777777777\0"), WAV), "unexpected end of data"),
    "names.tar": (lambda p: a_tar(p, *[header("n", 4, b"L") + b"name" + bytes(508)] * 1_000), "maximum recursion"),
    "many.tgz": (
        lambda p: p.write_bytes(gzip.compress(b"".join(header(f"{k}.wav", 0) for k in range(1_001)))),
        "it expands to 1,001 files or more",
    ),
    "long.zip": (
        lambda p: a_zip(p, {"\x1b" * 60_000: b""}),
        r"'\\x1b.*' has a name that is longer than that of any",
    ),
    "deep.zip": (lambda p: a_zip(p, {"a/" * 30_000 + "a.wav": b""}), "has a name that is longer"),
    "out.zip": (lambda p: a_zip(p, {"../" + "\x1b" * 60_000: b""}), r"'\.\./\\x1b.*' leads out of the folder"),
    "long.tar": (
        lambda p: a_tar(p, header("n", 999, b"L") + b"x" * 999 + bytes(25), header("m", 0)),
        "has a name that is longer",
    ),
    "header.tar": (lambda p: a_tar(p, header("n", 10**6, b"x"), bytes(10**6)), "a header of 1000448 bytes"),
    "no.tgz": (lambda p: p.write_bytes(b"\x1f\x8b\x08" + bytes(99)), "is not a complete gzip archive"),
    "pipe.zip": (os.mkfifo, "it is a pipe and no file"),
    "pipe.tgz": (os.mkfifo, "it is a pipe and no file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_archive_that_is_none_or_a_bomb_is_refused(name, tmp_path):
    make, said = REFUSED[name]
    make(tmp_path / name)
    tracemalloc.start()
    try:
        with pytest.raises(errors.InputError, match=said) as caught:
            list(trees.archive_tree(tmp_path / name).files())
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300
    assert os.listdir(tmp_path) == [name]


UNUSABLE = {
    "bomb": (lambda p: a_zip(p, {"a.wav": zeros(BOMB_BYTES), "more": os.urandom(600_000)}), "bytes would expand to"),
    "lie": (
        lambda p: patched(a_zip(p, {"a.wav": zeros(BOMB_BYTES)}), b"PK\1\2", 24, struct.pack("<I", 1000)),
        "Bad CRC-32",
    ),
    "bzip2": (lambda p: a_zip(p, {"a.wav": WAV}, zipfile.ZIP_BZIP2), "neither stored nor deflated"),
    "encrypted": (lambda p: patched(a_zip(p, {"a.wav": WAV}), b"PK\1\2", 8, b"\1"), "it is encrypted"),
    "elsewhere": (
        lambda p: patched(a_zip(p, {"a.wav": WAV}), b"PK\5\6", 16, b"\xf0\xff\xff\x7f"),
        "cannot be unpacked",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_member_that_cannot_be_unpacked_is_an_unusable_recording(name, tmp_path):
    make, said = UNUSABLE[name]
    tree = trees.ZipTree(make(tmp_path / "set.zip"))
    tracemalloc.start()
    try:
        with pytest.raises(audio.AudioError, match=said):
            tree.load("a.wav")
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
        assert tree.head("a.wav", 4) in (b"", bytes(4))
    finally:
        tracemalloc.stop()


def test_a_long_member_lies_in_a_file_while_it_is_read(tmp_path, monkeypatch):
    path = a_zip(tmp_path / "set.zip", {"a.wav": WAV})
    whole = trees.ZipTree(path).load("a.wav")
    monkeypatch.setattr(trees, "IN_MEMORY_BYTES", 1000)
    with trees.ZipTree(path)._unpacked("a.wav") as file:
        assert os.fstat(file.fileno()).st_size == len(WAV) and not os.fstat(file.fileno()).st_nlink
    np.testing.assert_array_equal(trees.ZipTree(path).load("a.wav"), whole)


def test_a_sparse_member_is_no_file(tmp_path):
    claims = header("s.wav", 0, b"S", s386=b"00000000000\0" * 2, s483=b"\x80" + (1 << 40).to_bytes(11, "big"))
    tree = trees.TarTree(a_tar(tmp_path / "set.tar", claims))
    assert tree.no_files() == {"s.wav": "no file"} and [name for name, _ in tree.files()] == ["a/x.wav"]
    assert len(tree.load("a/x.wav")) == LENGTH and tree.read("a/x.wav") == WAV
