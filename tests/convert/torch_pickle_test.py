"""torch_pickle: nothing that a pickle says runs, and what training code leaves in checkpoints becomes plain values."""

import argparse
import collections
import enum
import io
import os
import pickle
import struct
import sys
import types

import checkpoints
import numpy as np
import pytest
import torch

from voc2vec_jax import errors
from voc2vec_jax.convert import pickle_check, torch_files, torch_pickle


class WithState:
    """An object whose state is anything; under its own name it is harmless."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return argparse.Namespace, (), self.state


class Persistent(pickle.Pickler):
    """Pickles every bytes object as a reference to a storage that a payload describes."""

    payload = None

    def persistent_id(self, value):
        return ("storage", self.payload, "0", "cpu", 1) if isinstance(value, bytes) else None


def crafted(kind, payload):
    if kind == "persistent id":
        buffer = io.BytesIO()
        pickler = Persistent(buffer, 2)
        pickler.payload = payload
        pickler.dump([b"x"])
        return buffer.getvalue()
    value = {
        "top": payload,
        "in a list": {"model": {"a": [1, [payload]]}},
        "as a key": {"model": {payload: 1}},
        "in a Namespace": {"args": WithState({"x": payload}), "model": {}},
        "as a state": {"args": WithState(payload)},
        "in an OrderedDict": collections.OrderedDict(model=payload),
    }[kind]
    return pickle.dumps(value, 2)


KINDS = ("top", "in a list", "as a key", "in a Namespace", "as a state", "in an OrderedDict", "persistent id")


@pytest.mark.parametrize("suffix", [".pt", ".bin"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", ["system", "eval", "exec", "getattr"])
def test_a_payload_is_refused_by_name_and_does_not_run(tmp_path, suffix, kind, function):
    marker = tmp_path / "marker"
    payload = {
        "system": checkpoints.Payload(os.system, f"touch {marker}"),
        "eval": checkpoints.Payload(eval, f"open({str(marker)!r}, 'w')"),
        "exec": checkpoints.Payload(exec, f"open({str(marker)!r}, 'w')"),
        "getattr": checkpoints.Payload(getattr, checkpoints.Payload(os.open, str(marker), os.O_CREAT), "real"),
    }[function]
    path = checkpoints.as_file(tmp_path / f"model{suffix}", crafted(kind, payload), [b"\0" * 4])
    with pytest.raises(errors.InputError, match=rf"names \w+\.{function}, which is neither a tensor nor"):
        torch_files.load(path)
    assert not marker.exists()


def test_the_payload_is_live(tmp_path):
    """The proof that the tests above refuse something: the standard unpickler runs it."""
    marker = tmp_path / "marker"
    pickle.loads(crafted("in a list", checkpoints.Payload(os.system, f"touch {marker}")))
    assert marker.exists()


HOSTILE_PICKLES = {
    "a class by INST": b"(S'touch x'\nios\nsystem\n.",
    "a class by OBJ": b"(cos\nsystem\nS'touch x'\no.",
    "an extension": b"\x82\x01.",
    "a call of a storage": b"ctorch\nFloatStorage\n)R.",
    "a call of a type": b"cbuiltins\ndict\n)R.",
    "a call of a value": b"})R.",
    "a state of a class": b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00aNsb.",
    "an item of a class": b"ccollections\nOrderedDict\nNNs.",
    "an entry of a class": b"ccollections\nOrderedDict\nNa.",
    "an object of a function's result": b"ccollections\nOrderedDict\n)R)\x81.",
    "a call of an object": b"cfairseq.a\nB\n)R)R.",
    "a tuple as a key": b"})Ns.",
    "an OrderedDict with arguments that are no tuple": b"ccollections\nOrderedDict\n]R.",
    "a pickle in a frame that ends inside an opcode": b"\x80\x04\x95\x03" + bytes(7) + b"X\x02\x00\x00\x000\x82.",
    "a state of a function": b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__Ns\x86b.",
    "an empty stack": b"0.",
    "an unknown memo": b"h\x05.",
    "a mark too few": b"u.",
    "no end": b"}",
    "no opcode": b"\xff\xff",
    "an odd dict": b"(NNNd.",
    "a key that cannot be one": b"}}Ns.",
    "a whole number of 5000 digits": b"I" + b"9" * 5000 + b"\n.",
}


@pytest.mark.parametrize("name", HOSTILE_PICKLES)
def test_hostile_pickles_are_refused(tmp_path, name):
    with pytest.raises(errors.InputError):
        torch_files.load(checkpoints.as_file(tmp_path / "a.pt", HOSTILE_PICKLES[name]))


def configured(monkeypatch):
    """A configuration as omegaconf and fairseq pickle theirs: nodes that know their parents, enumerations, types."""

    def module(name, *classes):
        made = types.ModuleType(name)
        for cls in classes:
            kind = enum.Enum(cls, {"LOW": "low"}) if cls == "Choice" else type(cls, (), {})
            kind.__module__, kind.__qualname__ = name, cls
            setattr(made, cls, kind)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    for name in ("omegaconf", "fairseq", "fairseq.data"):
        module(name)
    containers = module("omegaconf.dictconfig", "DictConfig"), module("omegaconf.listconfig", "ListConfig")
    nodes, base = module("omegaconf.nodes", "AnyNode"), module("omegaconf.base", "ContainerMetadata")
    choices, symbols = module("fairseq.choices", "Choice"), module("fairseq.data.dictionary", "Dictionary")

    def made(cls, **state):
        value = cls()
        value.__dict__ = {"_metadata": base.ContainerMetadata(), "_parent": None, **state}
        return value

    def node(value):
        return made(nodes.AnyNode, _val=value)

    def tree(values):
        if not isinstance(values, (dict, list)):
            return node(values)
        if isinstance(values, dict):
            inner = made(containers[0].DictConfig, _content={key: tree(value) for key, value in values.items()})
            children = inner._content.values()
        else:
            inner = made(containers[1].ListConfig, _content=[tree(value) for value in values])
            children = inner._content
        for child in children:
            child._parent = inner
        return inner

    cfg = tree({"model": {"width": 768, "kernels": [10, 3], "mode": choices.Choice.LOW, "none": None}})
    counts = collections.defaultdict(int, a=1)
    dictionary = made(symbols.Dictionary, symbols=["<s>"])
    return {"cfg": cfg, "counts": counts, "dictionary": dictionary, "best": np.float64(0.25), "any": object}


def test_configurations_become_plain_and_nothing_is_imported(tmp_path, monkeypatch):
    data = pickle.dumps(configured(monkeypatch), 2)
    for name in [name for name in sys.modules if name.startswith(("omegaconf", "fairseq"))]:
        monkeypatch.delitem(sys.modules, name)
    got = torch_files.load(checkpoints.as_file(tmp_path / "a.pt", data))
    assert got["cfg"] == {"model": {"width": 768, "kernels": [10, 3], "mode": "low", "none": None}}
    assert got["counts"] == {"a": 1}
    assert got["dictionary"].name == "fairseq.data.dictionary.Dictionary"
    assert got["dictionary"].fields["symbols"] == ["<s>"]
    assert not any(name.startswith(("omegaconf", "fairseq")) for name in sys.modules)


def test_a_function_of_fairseq_is_recorded_and_not_called(tmp_path, monkeypatch):
    called = []
    module = types.ModuleType("fairseq.danger")
    module.run = lambda *args: called.append(args)
    monkeypatch.setitem(sys.modules, "fairseq.danger", module)
    got = torch_files.load(checkpoints.as_file(tmp_path / "a.pt", b"cfairseq.danger\nrun\n(K\x01K\x02tR."))
    assert isinstance(got, torch_pickle.Record) and got.args == (1, 2) and not called


@pytest.mark.parametrize(
    "module",
    ["fairseq", "fairseqx", "fairseq_x.y", "omegaconf", "omegaconfig", "lightningx", "pytorch_lightning", "x.fairseq.y"]
    + ["lightning", "lightning_fabric", "lightning_fabrics.y", "collections.abc", "collection"],
)
def test_modules_that_only_begin_like_those_of_training_code_are_refused(tmp_path, module):
    path = checkpoints.as_file(tmp_path / "a.pt", b"c%s\nOrderedDict\n." % module.encode())
    with pytest.raises(errors.InputError, match=rf"its pickle names {module}.OrderedDict, which is neither a tensor"):
        torch_files.load(path)


@pytest.mark.parametrize("more", [(0, 0), (1, 0), (0, 1)])
def test_a_name_of_a_class_is_short_in_both_of_its_parts(tmp_path, more):
    """By STACK_GLOBAL, whose parts lie on the stack; by what it begins with, the name is allowed."""
    module, name = ("x" * (pickle_check.LONGEST_NAME + extra) for extra in more)
    parts = [b"X" + struct.pack("<I", len(one)) + one.encode() for one in ("fairseq." + module[8:], name)]
    path = checkpoints.as_file(tmp_path / "a.pt", b"\x80\x04" + b"".join(parts) + b"\x93)R.")
    if any(more):
        with pytest.raises(errors.InputError, match="the name of a class with more than"):
            torch_files.load(path)
    else:
        assert torch_files.load(path).name.endswith(f".{name}")


def test_containers_that_contain_themselves_end(tmp_path):
    loop = [1]
    loop.append(loop)
    assert torch_files.load(checkpoints.as_file(tmp_path / "a.pt", pickle.dumps(loop, 2))) == [1, None]


@pytest.mark.parametrize("old_layout", [False, True])
def test_shared_containers_stay_shared_and_exponential_sharing_is_refused(tmp_path, old_layout):
    def read(levels):
        value = ["x"]
        for _ in range(levels):
            value = [value, value]
        torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=not old_layout)
        return torch_files.load(tmp_path / "a.pt")

    got = read(18)
    for _ in range(18):
        assert got[0] is got[1]
        got = got[0]
    assert got == ["x"]
    with pytest.raises(errors.InputError):
        read(60)


@pytest.mark.parametrize("opcode", [b"\x85", b"l", b"d"])
def test_deep_nesting_is_refused(tmp_path, opcode):
    pickles = {b"\x85": b")" + b"\x85" * 5000 + b".", b"l": b"(" * 5000 + b"l" * 5000 + b"."}
    data = pickles.get(opcode, b"(K\x01" * 5000 + b"d" * 5000 + b".")
    with pytest.raises(errors.InputError):
        torch_files.load(checkpoints.as_file(tmp_path / "a.pt", data))
