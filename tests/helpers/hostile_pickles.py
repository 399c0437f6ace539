"""Pickles that ask an unpickler for gigabytes, for years or for more stack than there is.

python hostile_pickles.py {refused,old,harmless} FOLDER    reads each with ours, under limits: one JSON line for each
python hostile_pickles.py standard NAME                lets the standard library read one under the same limits
"""

import io
import json
import pathlib
import pickle
import resource
import struct
import sys
import time
import zipfile

MEMORY_BYTES = 256 * 2**20  # beyond what the process has mapped before it reads
SECONDS = 2  # of CPU time for each, and for each megabyte


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def number(value):
    return b"J" + struct.pack("<i", value)


def integer(value):
    return b"\x8a\x10" + value.to_bytes(16, "little")


def claim(opcode, length, width="<Q"):
    return opcode + struct.pack(width, length) + b"x."


PAIRS = b"N" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))  # 60 tuples that each hold the one before twice
MANY = b"(" + b"K\x01" * 200_000 + b"tq\x00"
DICT = b"}(" + b"".join(number(i) + b"N" for i in range(100_000)) + b"uq\x00"
MODEL = b"cfairseq.models\nModel\nq\x01"
PARAMETER = b"ctorch._utils\n_rebuild_parameter\nq\x00"
CONFIG = b"comegaconf.dictconfig\nDictConfig\n)Rq\x00}" + text(b"_content") + b"h\x00sb."
LONG_KEYS = b"}" + text(b"a" * 10_000_000) + b"q\x00N" + b"s(" + text(b"a" * 10_000_000) + b"q\x01N"
BYTES = b"B" + struct.pack("<I", 200_000) + b"\xff" * 200_000
ENUMERATION = b"cfairseq.models\nKind\n"
HASHED_ALIKE = (integer(i * (2**61 - 1)) + b"N" for i in range(1, 100_000))  # their hash is 0


def tensor(offset=b"K\x00", shape=b"K\x01\x85", stride=b"K\x01\x85"):
    """A tensor of one element with any geometry."""
    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + number(1) + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride + b"\x89}tR"


def many_times(count):
    """Sets memo 0, which lies on top of a dict, as the value of one key, in a list of `count`."""
    return b"0" + text(b"x") + b"(" + b"h\x00" * count + b"ls"


def refused():
    """Name -> a pickle that must be refused."""
    return {
        "a memo index": b"Nr\xff\xff\xff\x7f.",
        "claimed bytes": claim(b"\x8e", 2**40),
        "claimed text": claim(b"\x8d", 2**40),
        "a claimed integer": claim(b"\x8b", 2**31 - 1, "<i"),
        "a frame behind the end": claim(b"\x80\x04\x95", 2**62),
        "a long integer": b"\x8b" + struct.pack("<i", 10_000_000) + b"\x01" * 10_000_000 + b".",
        "a tuple of tuples as a key": b"}" + PAIRS + b"Ns.",
        "a tuple of tuples in a set": b"\x8f(" + PAIRS + b"\x90.",
        "a deep tuple as a key": b"})" + b"\x85" * 900_000 + b"Ns.",
        "a deep tuple": b")" + b"\x85" * 900_000 + b".",
        "a deep list": b"(" * 400_000 + b"l" * 400_000 + b".",
        "arguments that each call copies": MANY + MODEL + b"(" + b"h\x01h\x00R" * 100_000 + b"l.",
        "arguments that each object copies": MANY + MODEL + b"(" + b"h\x01h\x00\x81" * 100_000 + b"l.",
        "a state that each call copies": DICT + MODEL + b")R" + b"h\x00b" * 100_000 + b".",
        "a flood of dicts": b"(" + b"}" * 5_000_000 + b"l.",
        "a flood of marks": b"(" * 3_000_000 + b".",
        "a flood of memo entries": b"N" + b"q\x00" * 1_500_000 + b".",
        "integers that are hashed alike": b"}(" + b"".join(HASHED_ALIKE) + b"u.",
        "long keys that are equal": LONG_KEYS + b"h\x00Nh\x01N" * 100_000 + b"u.",
        "names of classes": b"(" + b"".join(b"cfairseq.x\nx%d\n" % i for i in range(200_000)) + b"l.",
        "tuples of tuples": PAIRS + b".",
        "a configuration that is its own content": CONFIG,
        "a parameter of a parameter": PARAMETER + b"h\x00" * 200_000 + tensor() + b"\x85R" * 200_001 + b".",
        "keys that are long when written out": BYTES
        + b"\x85q\x000"
        + ENUMERATION
        + b"q\x010("
        + b"}h\x01h\x00RNs" * 7000
        + b"l.",
        "a set of what is long when written out": b"\x8f("
        + BYTES
        + b"\x85q\x000"
        + ENUMERATION
        + b"q\x01"
        + b"h\x01h\x00R" * 7000
        + b"\x90.",
        "long names put together": text(b"fairseq." + b"a" * 200_000)
        + b"q\x000"
        + text(b"b")
        + b"q\x010("
        + b"h\x00h\x01\x93" * 14_000
        + b"l.",
        "a name of escapes": b"\x80\x04" + text(b"\x1b" * 250) + text(b"\x1b" * 250) + b"\x93.",
        "a flood of sets": b"(" + b"\x8f" * 900_000 + b"l.",
        "a flood of records": ENUMERATION + b"q\x00)q\x010(" + b"h\x00h\x01R" * 300_000 + b"l.",
        "a shape of tuples": tensor(shape=PAIRS) + b".",
        "an offset of tuples": tensor(offset=PAIRS) + b".",
    }


def old():
    """Some of `refused`, for the layout from before PyTorch 1.6."""
    names = ("a memo index", "claimed bytes", "a tuple of tuples as a key", "a flood of marks")
    return {name: refused()[name] for name in names}


def harmless():
    """Name -> a pickle that may be read, for what it shares is not copied."""
    ones = b"(" + b"K\x01" * 32 + b"t"
    return {
        "one tensor in many places": b"}" + tensor(shape=ones, stride=ones) + b"q\x00" + many_times(400_000) + b".",
        "one state of many objects": DICT + MODEL + b"0(" + b"h\x01)Rh\x00b" * 60_000 + b"l.",
        "one dict in many counters": DICT + b"ccollections\nCounter\nq\x010(" + b"h\x01h\x00\x85R" * 60_000 + b"l.",
        "one list in many sets": b"]q\x00("
        + b"K\x01" * 100_000
        + b"ecbuiltins\nset\nq\x010("
        + b"h\x01h\x00\x85R" * 60_000
        + b"l.",
    }


def limited():
    """Limits this process to a little more memory than it has mapped."""
    mapped = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))


def in_a_zip(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/data/0", b"\0" * 4)


def in_the_old_layout(path, data):
    """As PyTorch wrote it before version 1.6, with one storage of one element."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    before = (pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, machine))
    path.write_bytes(b"".join(before) + b"\x80\x02" + data + b"](" + text(b"0") + b"e." + struct.pack("<q4x", 1))


def read(kind, folder):
    from voc2vec_jax import errors
    from voc2vec_jax.convert import torch_files

    path = pathlib.Path(folder) / "a.pt"
    named = {"refused": refused, "old": old, "harmless": harmless}[kind]()
    limited()
    for name, data in named.items():
        (in_the_old_layout if kind == "old" else in_a_zip)(path, data)
        start, said = time.process_time(), None
        try:
            torch_files.load(path)
        except errors.InputError as fault:
            said = str(fault)
        seconds = (time.process_time() - start) / max(1, path.stat().st_size / 1e6)
        print(json.dumps({"name": name, "said": said, "seconds": seconds}), flush=True)


class Standard(pickle.Unpickler):
    """The standard library's, with stand-ins that do what is natural."""

    def find_class(self, module, name):
        return type(name, (dict,), {"__init__": lambda self, *args: setattr(self, "args", args)})

    def persistent_load(self, pid):
        return pid


def standard(name):
    limited()
    resource.setrlimit(resource.RLIMIT_CPU, (4, 4))
    Standard(io.BytesIO(refused()[name])).load()
    print("read")


if __name__ == "__main__":
    read(*sys.argv[1:]) if sys.argv[1] != "standard" else standard(sys.argv[2])
