"""torch_files: the same values as PyTorch reads and writes, and nothing in a hostile file runs or reaches outside."""

import argparse
import collections
import os
import pickle
import struct
import zipfile

import checkpoints
import ml_dtypes
import numpy as np
import pytest
import torch

from voc2vec_jax import errors
from voc2vec_jax.convert import torch_files, torch_pickle

RNG = np.random.default_rng(0)
DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128"


def read(value):
    """The tree with every tensor read."""
    if isinstance(value, torch_pickle.Tensor):
        return value.read()
    if isinstance(value, dict):
        return {key: read(item) for key, item in value.items()}
    return type(value)(read(item) for item in value) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_torch_writes(tmp_path, protocol):
    matrix = torch.arange(12.0).reshape(3, 4)
    value = {
        "view": matrix[1:, ::2],
        "transposed": matrix.t(),
        "parameter": torch.nn.Parameter(matrix.clone()),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.5),
        "ordered": collections.OrderedDict(a=[1, -2, 2**70, 1.5, "é", True, None], b=(1, 2, 3, 4)),
    }
    torch.save(value, tmp_path / "a.pt", pickle_protocol=protocol)
    got = read(torch_files.load(tmp_path / "a.pt"))
    for key in ("view", "transposed", "parameter", "empty", "scalar"):
        want = value[key].detach().numpy()
        assert got[key].dtype == want.dtype and got[key].shape == want.shape
        np.testing.assert_array_equal(got[key], want)
    assert got["ordered"] == value["ordered"]


@pytest.mark.parametrize("dtype", DTYPES.split())
def test_every_dtype_both_ways(tmp_path, dtype):
    tensor = torch.arange(-3, 5).to(getattr(torch, dtype))
    torch.save({"x": tensor}, tmp_path / "a.pt")
    array = torch_files.load(tmp_path / "a.pt")["x"].read()
    assert array.dtype == np.dtype(getattr(ml_dtypes, dtype, dtype))
    np.testing.assert_array_equal(array.astype(complex), tensor.to(torch.complex128).numpy())
    torch_files.save(tmp_path / "b.pt", {"x": array})
    back = torch.load(tmp_path / "b.pt", weights_only=True)["x"]
    assert back.dtype == tensor.dtype and torch.equal(back, tensor)


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_reads_what_we_write(tmp_path, mapped):
    arrays = {f"a.{i}": RNG.standard_normal((i, 3)).astype(np.float32) for i in range(4)}
    arrays["transposed"], arrays["scalar"] = arrays["a.3"].T, np.full((), 2, np.float32)
    rest = {"cfg": {"n": [1, -(2**40), 0.1, None, True], "t": (1, "é"), "e": {}, "l": []}, "args": None}
    torch_files.save(tmp_path / "a.pt", {"model": arrays, **rest})
    got = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mapped)
    assert {key: value for key, value in got.items() if key != "model"} == rest
    assert list(got["model"]) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(got["model"][name].numpy(), array)
    ours = read(torch_files.load(tmp_path / "a.pt"))
    assert ours["cfg"] == rest["cfg"]
    np.testing.assert_array_equal(ours["model"]["transposed"], arrays["transposed"])


def test_equal_values_give_equal_files(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        torch_files.save(tmp_path / folder / "a.pt", {"w": np.ones((2, 3), np.float32)})
    assert (tmp_path / "x/a.pt").read_bytes() == (tmp_path / "y/a.pt").read_bytes()


def test_tensors_start_at_multiples_of_64_bytes(tmp_path):
    torch_files.save(tmp_path / "a.pt", {str(size): np.full(size, 7, np.uint8) for size in (1, 63, 64, 65, 1000)})
    whole = (tmp_path / "a.pt").read_bytes()
    for info in zipfile.ZipFile(tmp_path / "a.pt").infolist():
        name, extra = struct.unpack_from("<HH", whole, info.header_offset + 26)
        assert (info.header_offset + 30 + name + extra) % 64 == 0


def test_what_is_no_plain_value_is_not_written(tmp_path):
    for value in ({1, 2}, object(), np.array(["a"])):
        with pytest.raises(TypeError, match="cannot be written"):
            torch_files.save(tmp_path / "a.pt", {"x": value})
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_is_a_view_of_the_file(tmp_path):
    torch.save({"x": torch.ones(1000)}, tmp_path / "a.pt")
    array = torch_files.load(tmp_path / "a.pt")["x"].read()
    assert not array.flags.owndata and not array.flags.writeable


def tensor_pickle(size, offset, shape, stride):
    """The pickle of one float32 tensor with any geometry."""

    def whole(value):
        return b"J" + struct.pack("<i", value)

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value

    return b"".join(
        [
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((",
            *(text(b"storage"), b"ctorch\nFloatStorage\n", text(b"0"), text(b"cpu"), whole(size), b"tQ"),
            *(whole(offset), b"(", *map(whole, shape), b"t(", *map(whole, stride), b"t\x89}tR."),
        ]
    )


def test_the_crafted_geometry_is_read(tmp_path):
    data = np.arange(12, dtype=np.float32)
    path = checkpoints.as_file(tmp_path / "a.pt", tensor_pickle(12, 2, (2, 3), (1, 4)), [data.tobytes()])
    want = np.lib.stride_tricks.as_strided(data[2:], (2, 3), (4, 16))
    np.testing.assert_array_equal(torch_files.load(path).read(), want)


@pytest.mark.parametrize(
    "size, offset, shape, stride",
    [
        (12, 1, (12,), (1,)),  # one past the end
        (12, 0, (4, 4), (4, 1)),  # too many elements
        (12, 0, (2, 2), (1, 100)),  # a stride over the end
        (12, -1, (2,), (1,)),
        (12, 0, (2,), (-1,)),
        (12, 0, (-2,), (1,)),
        (12, 0, (2, 2), (1,)),
        (12, 0, (1000, 1000), (0, 0)),  # one element repeated a million times
        (13, 0, (13,), (1,)),  # a storage larger than its bytes
        (2**31 - 1, 0, (2**31 - 1,), (1,)),
        (12, 0, (1,) * 40, (1,) * 40),
    ],
)
def test_no_tensor_reaches_outside_its_storage(tmp_path, size, offset, shape, stride):
    path = checkpoints.as_file(tmp_path / "a.pt", tensor_pickle(size, offset, shape, stride), [b"\0" * 48])
    with pytest.raises(errors.InputError):
        torch_files.load(path)


def test_a_truncated_file_gives_one_sentence(tmp_path):
    torch.save({"model": {"w": torch.arange(50.0)}}, tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    for length in (0, 1, 3, 15, 16, *range(20, len(whole), 37), len(whole) - 1):
        (tmp_path / "b.pt").write_bytes(whole[:length])
        with pytest.raises(errors.InputError) as caught:
            read(torch_files.load(tmp_path / "b.pt"))
        assert "\n" not in str(caught.value) and "b.pt" in str(caught.value)


def test_flipped_bytes_give_the_same_values_or_one_sentence(tmp_path):
    torch.save({"model": {"w": torch.arange(50.0), "v": torch.ones(3, 2)}, "n": 7}, tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    want = read(torch_files.load(tmp_path / "a.pt"))
    refused = 0
    for at in RNG.choice(len(whole), 400, replace=False):
        data = bytearray(whole)
        data[at] ^= int(RNG.integers(1, 256))
        (tmp_path / "b.pt").write_bytes(data)
        try:
            got = read(torch_files.load(tmp_path / "b.pt"))
        except errors.InputError:
            refused += 1
        else:
            np.testing.assert_equal(got, want)
    assert refused > 100


def test_a_flipped_weight_is_noticed(tmp_path):
    torch.save({"w": torch.full((64,), 1.5)}, tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[data.index(struct.pack("<f", 1.5) * 64)] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    tensor = torch_files.load(tmp_path / "a.pt")["w"]
    with pytest.raises(errors.InputError, match="does not match its checksum"):
        tensor.read()


def test_what_torch_save_did_not_write_is_refused(tmp_path):
    cases = {
        "is compressed": checkpoints.as_file(
            tmp_path / "a.pt", pickle.dumps({"a": "b" * 99}, 2), (), zipfile.ZIP_DEFLATED
        ),
        "without one data.pkl": tmp_path / "b.pt",
        "it starts with": tmp_path / "c.pt",
        "cannot be read": tmp_path / "absent.pt",
        "lacks its member data/0": checkpoints.as_file(tmp_path / "d.pt", tensor_pickle(1, 0, (1,), (1,))),
    }
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("a/data.txt", "x")
    (tmp_path / "c.pt").write_text("hello, world")
    for reason, path in cases.items():
        with pytest.raises(errors.InputError, match=reason):
            torch_files.load(path)


def in_the_old_layout(path, value):
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path


def test_the_old_layout_is_read_as_the_new_one(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    value = {
        "args": argparse.Namespace(arch="wav2vec2"),
        "model": {"whole": whole, "part": whole[1:, ::2].t(), "half": torch.ones(2).bfloat16(), "none": torch.ones(0)},
        "step": torch.tensor(3),
    }
    got = torch_files.load(in_the_old_layout(tmp_path / "a.pt", value))
    torch.save(value, tmp_path / "new.pt")
    new = torch_files.load(tmp_path / "new.pt")
    assert got["args"] == new["args"] == {"arch": "wav2vec2"}
    for name, tensor in {**got["model"], "step": got["step"]}.items():
        other = new["model"].get(name, new["step"])
        assert tensor.dtype == other.dtype and tensor.shape == other.shape
        np.testing.assert_array_equal(tensor.read(), other.read())
    assert got["model"]["half"].dtype == ml_dtypes.bfloat16


def test_a_fault_in_the_old_layout_is_one_sentence(tmp_path):
    path, marker = tmp_path / "a.pt", tmp_path / "marker"
    with pytest.raises(errors.InputError, match=r"its pickle names \w+.system") as caught:
        torch_files.load(in_the_old_layout(path, {"x": checkpoints.Payload(os.system, f"touch {marker}")}))
    assert not marker.exists() and "\n" not in str(caught.value)
    data = in_the_old_layout(path, {"w": torch.arange(4.0)}).read_bytes()
    for changed, sentence in (
        (data[:-1], "ends inside storage"),
        (data[:-24] + b"\5" + data[-23:], "its storages are not those of its tensors"),
        (data.replace(b"little_endian", b"littleXendian"), "or of a big-endian machine"),
        (data[:200], "its pickle is damaged"),
    ):
        path.write_bytes(changed)
        with pytest.raises(errors.InputError, match=sentence):
            torch_files.load(path)


def test_tensors_without_their_numbers_are_named(tmp_path):
    for tensor, kind in (
        (torch.eye(2).to_sparse(), "a sparse tensor"),
        (torch.ones(2, device="meta"), "a tensor of the meta device"),
    ):
        torch.save({"w": tensor}, tmp_path / "a.pt")
        for path in (tmp_path / "a.pt", in_the_old_layout(tmp_path / "b.pt", {"w": tensor})):
            with pytest.raises(errors.InputError, match=f"holds {kind}"):
                torch_files.load(path)
