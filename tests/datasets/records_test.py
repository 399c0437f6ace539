"""A prepared set reads back what was written: to the bit, in any order, from any thread or process, also by TFDS."""

import concurrent.futures
import multiprocessing
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from voc2vec_jax import errors
from voc2vec_jax.datasets import records, shards

NAME = "toy"
SHARDS = ((1, 300, 0x7F), (), (128, 16_000), (70_000,))  # lengths around those where a varint grows


def _examples(shard: int, flip: int = 0) -> list[records.Example]:
    rng = np.random.default_rng(shard)
    return [
        records.Example(
            audio=rng.integers(-32768, 32768, length).astype(np.int16) ^ np.int16(flip if length == 300 else 0),
            id=f"é {shard}/#{k}.wav#{k}",
            recording=f"é {shard}/#{k}.wav",
            group=["", "ann", "bob"][k],
            label=["cry", "", "laugh"][k],
            start_sample=length * 1000,
        )
        for k, length in enumerate(SHARDS[shard])
    ]


EXAMPLES = [example for shard in range(len(SHARDS)) for example in _examples(shard)]


def _write(data_dir: pathlib.Path, flip: int = 0) -> pathlib.Path:
    folder = records.set_folder(data_dir, NAME)
    folder.mkdir(parents=True)
    made = [
        shards.write(folder / records.shard_name(NAME, k, len(SHARDS)), _examples(k, flip), [], {}, [])
        for k in range(len(SHARDS))
    ]
    shards.finish(folder, NAME, made, ("cry", "laugh"), {"files": len(EXAMPLES)})
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("data")
    _write(path)
    return path


def test_the_index_holds_every_example_in_order(data_dir):
    opened = records.open_set(data_dir, NAME)
    assert records.list_sets(data_dir) == [NAME]
    assert len(opened) == len(EXAMPLES) and opened.report == {"files": len(EXAMPLES)}
    assert opened.samples.tolist() == [len(example.audio) for example in EXAMPLES]
    assert opened.start_sample.tolist() == [example.start_sample for example in EXAMPLES]
    assert opened.ids.tolist() == [example.id for example in EXAMPLES]
    assert opened.recordings[opened.recording].tolist() == [example.recording for example in EXAMPLES]
    groups, labels = [*opened.groups, ""], [*opened.labels, ""]  # -1 is the last
    assert [groups[k] for k in opened.group] == [example.group for example in EXAMPLES]
    assert [labels[k] for k in opened.label] == [example.label for example in EXAMPLES]


@pytest.mark.parametrize("order", [[], [0], [5, 0, 3, 3, 1, 4, 2], list(range(6))])
def test_read_returns_the_audio_in_the_order_asked_for(data_dir, order):
    found = records.open_set(data_dir, NAME).read([k % len(EXAMPLES) for k in order])
    assert len(found) == len(order)
    for k, samples in zip(order, found):
        np.testing.assert_array_equal(samples, EXAMPLES[k % len(EXAMPLES)].audio)
        assert not samples.flags.writeable


@pytest.mark.parametrize("index", [-1, len(EXAMPLES)])
def test_an_index_outside_raises(data_dir, index):
    with pytest.raises(IndexError, match=f"record {index} of toy, which has {len(EXAMPLES)}"):
        records.open_set(data_dir, NAME).read([index])


def test_threads_and_processes_share_a_set(data_dir):
    opened = records.open_set(data_dir, NAME)
    orders = [np.random.default_rng(k).permutation(len(EXAMPLES)) for k in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for order, found in zip(orders, pool.map(opened.read, orders)):
            assert all(np.array_equal(EXAMPLES[k].audio, samples) for k, samples in zip(order, found))
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert len(pool.submit(opened.read, [3]).result()[0]) == len(EXAMPLES[3].audio)
    assert pickle.loads(pickle.dumps(opened)).fingerprint == opened.fingerprint


def test_tfds_reads_the_same_examples(data_dir):
    builder = tfds.builder_from_directory(str(records.set_folder(data_dir, NAME)))
    source = builder.as_data_source("train")
    assert builder.info.splits["train"].num_examples == len(source) == len(EXAMPLES)
    for example, found in zip(EXAMPLES, source):
        np.testing.assert_array_equal(found["audio"], example.audio)
        assert found["start_sample"] == example.start_sample
        for key in ("id", "recording", "group", "label"):
            assert found[key].decode() == getattr(example, key)


def test_an_example_encodes_as_tfds_would_but_for_the_order_of_the_map():
    for example in EXAMPLES:
        by_tfds = shards.features().serialize_example(example._asdict())
        assert sorted(by_tfds) == sorted(records.encode(example))
        assert shards.features().deserialize_example_np(records.encode(example))["id"] == example.id.encode()


def test_the_fingerprint_follows_a_single_sample(data_dir, tmp_path):
    first = records.open_set(data_dir, NAME)
    _write(tmp_path / "same")
    _write(tmp_path / "changed", flip=1)
    assert records.open_set(tmp_path / "same", NAME).fingerprint == first.fingerprint
    changed = records.open_set(tmp_path / "changed", NAME)
    assert changed.fingerprint != first.fingerprint and changed.samples.tolist() == first.samples.tolist()


def test_a_set_that_is_absent_half_prepared_or_foreign_says_what_to_do(tmp_path):
    with pytest.raises(
        errors.InputError, match=r"set toy is not prepared in .* \(prepared there: none\): run `voc2vec prepare toy"
    ):
        records.open_set(tmp_path, NAME)
    records.partial_folder(tmp_path, NAME).mkdir(parents=True)
    with pytest.raises(errors.InputError, match="set toy is only half prepared .* to finish it"):
        records.open_set(tmp_path, NAME)
    records.set_folder(tmp_path, "other").mkdir(parents=True)
    with pytest.raises(errors.InputError, match="has no index.npz, so it was not written by voc2vec prepare"):
        records.open_set(tmp_path, "other")


def test_a_short_or_missing_shard_is_found_when_opening(tmp_path):
    folder = _write(tmp_path)
    shard = folder / records.shard_name(NAME, 2, len(SHARDS))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(errors.InputError, match="bytes where its index says .*: delete .* and prepare toy again"):
        records.open_set(tmp_path, NAME)
    shard.unlink()
    with pytest.raises(errors.InputError, match="00002-of-00004 has 0 bytes where its index says"):
        records.open_set(tmp_path, NAME)


def test_a_flipped_byte_of_audio_is_found_when_reading(tmp_path):
    folder = _write(tmp_path)
    shard = folder / records.shard_name(NAME, 3, len(SHARDS))
    data = bytearray(shard.read_bytes())
    data[data.index(EXAMPLES[5].audio[1000:1010].tobytes())] ^= 1
    shard.write_bytes(data)
    with pytest.raises(errors.InputError, match="record 0 of .*00003-of-00004 is damaged"):
        records.open_set(tmp_path, NAME).read([5])


def test_a_shard_whose_writing_fails_leaves_nothing(tmp_path):
    def breaking():
        yield _examples(0)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.write(tmp_path / "x", breaking(), [], {}, [])
    assert shards.load(tmp_path / "x") is None and not (tmp_path / "x").exists()
    with pytest.raises(errors.RunError, match="cannot write .*: free the disk and run again to continue"):
        shards.write(tmp_path / "no" / "x", iter(_examples(0)), [], {}, [])


def test_writing_and_reading_never_import_tensorflow(data_dir):
    code = (
        "import sys; from voc2vec_jax.datasets import records; import tensorflow_datasets as tfds;"
        f"s = records.open_set({str(data_dir)!r}, 'toy'); s.read([0]);"
        "d = tfds.builder_from_directory(str(s.folder)).as_data_source('train')[0];"
        "sys.exit(bool({'tensorflow', 'pooch', 'requests'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=pathlib.Path(__file__).parents[2]).returncode == 0
    assert "tensorflow" not in sys.modules
