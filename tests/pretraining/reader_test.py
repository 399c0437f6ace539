"""Batches from prepared records: exact resume, hosts, processes, failures, and the resident corpus."""

import multiprocessing
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
from benchmarks import data as data_benchmark

from voc2vec_jax import errors
from voc2vec_jax.datasets import corpora, records, resident
from voc2vec_jax.pretraining import batch_layout, batch_plan, held_out
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import reader as pretraining_reader
from voc2vec_jax.runs import sharding

HERE, ROOT = pathlib.Path(__file__).parent, pathlib.Path(__file__).parents[2]
LAYOUT = batch_layout.BatchLayout(4, 2, 8000, (2000, 4000, 8000), same_length_groups=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """(folder, every clip of its sets "one" and "two" in corpus order)."""
    folder = tmp_path_factory.mktemp("prepared")
    draw = np.random.default_rng(0)
    lengths = {"one": draw.integers(500, 12000, 61), "two": draw.integers(500, 5000, 40)}
    for seed, (name, samples) in enumerate(lengths.items()):
        data_benchmark.write_noise(folder, name, samples, seed=seed, shard_count=3)
    clips = [
        data_benchmark.noise(seed, i, int(n))
        for seed, samples in enumerate(lengths.values())
        for i, n in enumerate(samples)
    ]
    return folder, clips


@pytest.fixture(scope="module")
def corpus(data):
    return corpora.open_corpus(data[0], ["one", "two"])


@pytest.fixture(scope="module")
def drawn(corpus):
    rows = np.arange(len(corpus))
    return batch_plan.BatchPlan(LAYOUT, corpus.samples, corpus.set_index, rows, seed=3, weights=(1, 1.5))


def validation_batches(corpus, rows, layout, **options):
    fixed = batch_plan.ValidationPlan(layout, corpus.samples, rows)
    return pretraining_reader.read_batches(corpus, fixed, 0, fixed.steps_per_epoch, **options)


def groups(batch):
    """(corpus rows, lengths, audio [r, s]) of each loss group; the rest of its arrays is checked to hold nothing."""
    for bucket, audio, *places in zip(*(batch[name] for name in ("bucket", "audio", "index", "lengths"))):
        rows, samples = LAYOUT.group_rows_of(int(bucket)), LAYOUT.bucket_samples[bucket]
        assert audio.shape == (16_000,) and places[0].shape == places[1].shape == (8,)
        assert not audio[rows * samples :].any() and np.all(places[0][rows:] == -1) and not places[1][rows:].any()
        yield places[0][:rows], places[1][:rows], audio[: rows * samples].reshape(rows, samples)


def collect(batches):
    with batches:
        return [{key: np.array(value) for key, value in batch.items()} for batch in batches]


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_the_corpus_is_its_sets_one_after_another(data, corpus):
    clips = data[1]
    np.testing.assert_array_equal(corpus.samples, [len(clip) for clip in clips])
    np.testing.assert_array_equal(corpus.set_index, [0] * 61 + [1] * 40)
    order = [100, 3, 61, 3, 60]
    for row, clip in zip(order, corpus.read(order)):
        np.testing.assert_array_equal(clip, clips[row])
    assert corpus.ids(62) == "two/0.wav#1"
    assert len(set(corpus.recording)) == 31 + 20 and corpus.recording[60] != corpus.recording[61]
    assert corpus.fingerprint != corpora.open_corpus(data[0], ["two", "one"]).fingerprint


def test_opening_refuses_what_is_not_there(data):
    with pytest.raises(errors.InputError, match="set three is not prepared"):
        corpora.open_corpus(data[0], ["one", "three"])
    with pytest.raises(errors.InputError, match="each only once"):
        corpora.open_corpus(data[0], ["one", "one"])
    with pytest.raises(errors.InputError, match="at least one"):
        corpora.open_corpus(data[0], [])


def test_split_is_by_recording(corpus):
    train, valid = held_out.split(corpus, 0.2, 0, held_out.NOTHING)
    assert not set(corpus.recording[train]) & set(corpus.recording[valid])
    assert len(train) + len(valid) == len(corpus)


def test_too_short_finds_clips_without_room_for_a_span():
    short = pretraining_data.too_short(np.array([4239, 4240, 1, 0], np.int32), 4240)
    np.testing.assert_array_equal(short, [True, False, True, True])


def test_a_batch_holds_the_planned_crops_and_zeros(data, corpus, drawn):
    clips = data[1]
    batches = collect(pretraining_reader.read_batches(corpus, drawn, 0, 2 * drawn.steps_per_epoch))
    assert any(len(set(batch["bucket"])) > 1 for batch in batches), "lengths are mixed"
    for k, batch in enumerate(batches):
        for g, places in enumerate(groups(batch)):
            for u, row, length, audio in zip(drawn.step(k).start_u[g], *places):
                assert length == min(len(clips[row]), len(audio))
                start = int(u * (len(clips[row]) - length + 1))
                np.testing.assert_array_equal(audio[:length], clips[row][start : start + length])
                assert not audio[length:].any()


@pytest.mark.parametrize("batching", ["pad", "crop"])
@pytest.mark.parametrize("first", [1, 13, 40])
def test_from_any_first_step_it_is_the_tail_of_the_whole_run(corpus, drawn, batching, first):
    whole = collect(pretraining_reader.read_batches(corpus, drawn, 0, 60, batching=batching, threads=1))
    tail = collect(pretraining_reader.read_batches(corpus, drawn, first, 60, batching=batching, threads=4, prefetch=7))
    assert_same(tail, whole[first:])
    assert collect(pretraining_reader.read_batches(corpus, drawn, 60, 60)) == []


def test_crop_batching_leaves_no_padding_inside_a_group(corpus, drawn):
    for batch in collect(pretraining_reader.read_batches(corpus, drawn, 0, 20, batching="crop")):
        for rows, lengths, audio in groups(batch):
            assert np.all(lengths == min(corpus.samples[rows].min(), audio.shape[1]))


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("batching", ["pad", "crop"])
def test_hosts_read_the_parts_of_one_batch(corpus, drawn, batching, hosts):
    whole = collect(pretraining_reader.read_batches(corpus, drawn, 5, 15, batching=batching))
    parts = [
        collect(pretraining_reader.read_batches(corpus, drawn, 5, 15, batching=batching, host=(host, hosts)))
        for host in range(hosts)
    ]
    for k, batch in enumerate(whole):
        for key, value in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[k][key] for part in parts]), value)
    assert parts[0][0]["index"].shape[0] == 4 // hosts


def test_hosts_that_do_not_divide_the_groups_are_refused(corpus, drawn):
    for hosts in (3, 8):
        with pytest.raises(errors.InputError, match=f"4 loss groups do not divide over {hosts} hosts"):
            pretraining_reader.read_batches(corpus, drawn, 0, 1, host=(0, hosts))


def test_validation_sees_every_clip_once_from_its_start(data, corpus):
    rows = np.arange(3, 90)
    batches = collect(validation_batches(corpus, rows, LAYOUT))
    index = np.concatenate([batch["index"].ravel() for batch in batches])
    np.testing.assert_array_equal(np.sort(index[index >= 0]), rows)
    for places in (places for batch in batches for places in groups(batch)):
        for row, length, audio in zip(*places):
            assert length == (min(len(data[1][row]), 8000) if row >= 0 else 0)
            np.testing.assert_array_equal(audio[:length], data[1][row][:length])
            assert not audio[length:].any()
    assert_same(collect(validation_batches(corpus, rows, LAYOUT, threads=1)), batches)


def children():
    return {child.pid for child in multiprocessing.active_children()}


def shared_memory():
    return {path.name for path in pathlib.Path("/dev/shm").glob("psm_*")}


@pytest.mark.slow
def test_processes_read_the_same_and_leave_nothing_behind(corpus, drawn):
    before = children(), shared_memory()
    in_threads = collect(pretraining_reader.read_batches(corpus, drawn, 2, 25))
    assert_same(collect(pretraining_reader.read_batches(corpus, drawn, 2, 25, workers=2, threads=1)), in_threads)
    stopped_early = pretraining_reader.read_batches(corpus, drawn, 0, 50, workers=2)
    wait_until(lambda: len(children()) == len(before[0]) + 2)  # before the first batch is asked for
    next(stopped_early)
    stopped_early.close()
    assert list(stopped_early) == []
    pretraining_reader.read_batches(corpus, drawn, 0, 50, workers=1).close()
    assert children() == before[0]
    wait_until(lambda: shared_memory() <= before[1])  # Grain frees the last arrays in a thread of its own


SCRIPT = """
import multiprocessing, sys, time
from voc2vec_jax.datasets import corpora
from voc2vec_jax.pretraining import batch_plan, reader
import reader_test

if __name__ == "__main__":
    corpus = corpora.open_corpus(sys.argv[1], ["one", "two"])
    rows = reader_test.np.arange(101)
    drawn = batch_plan.BatchPlan(reader_test.LAYOUT, corpus.samples, corpus.set_index, rows, seed=3)
    batches = reader.read_batches(corpus, drawn, 0, 10**6, workers=1)
    next(batches)
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start_script(data, tmp_path, seconds):
    script = tmp_path / "forgetful.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}{os.pathsep}{ROOT / 'tools'}"}
    command = [sys.executable, "-W", "error", script, data[0], str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(happened):
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.1)


def test_a_program_that_forgets_to_close_ends_at_once_and_in_silence(data, tmp_path):
    program = start_script(data, tmp_path, seconds=0)
    _, complaints = program.communicate(timeout=60)
    assert program.returncode == 0 and complaints == ""


def test_reading_processes_end_with_a_killed_program(data, tmp_path):
    program = start_script(data, tmp_path, seconds=100)
    reader = int(program.stdout.readline())
    os.kill(reader, 0)
    program.kill()
    try:
        program.communicate(timeout=20)  # ends when the reading process has let go of the pipe, too
    except subprocess.TimeoutExpired:
        os.kill(reader, signal.SIGKILL)
        raise
    assert program.returncode == -signal.SIGKILL


@pytest.fixture
def fragile(data, tmp_path):
    """A corpus of its own whose files may be destroyed, and a plan over it."""
    shutil.copytree(data[0], tmp_path / "prepared")
    corpus = corpora.open_corpus(tmp_path / "prepared", ["one"])
    rows = np.arange(len(corpus))
    drawn = batch_plan.BatchPlan(LAYOUT, corpus.samples, corpus.set_index, rows, seed=0)
    return corpus, drawn, sorted((tmp_path / "prepared").glob("one/*/*00002-of-00003"))[0]


@pytest.mark.parametrize(
    "workers, damage", [(0, "deleted"), (0, "truncated"), (0, "overwritten"), (1, "deleted"), (1, "truncated")]
)
def test_a_shard_lost_while_training_is_named(fragile, workers, damage):
    corpus, drawn, shard = fragile
    before = children()
    if damage == "deleted":  # an open file outlives its name, so before it is opened
        shard.unlink()
    batches = pretraining_reader.read_batches(corpus, drawn, 0, 10**6, workers=workers, threads=1, prefetch=2)
    with pytest.raises(errors.RunError, match="00002-of-00003") as caught:
        next(batches)
        destroy(shard, damage)
        for _ in range(2 * drawn.steps_per_epoch):
            next(batches)
    assert "prepare one again" in str(caught.value) and "\n" not in str(caught.value)
    assert list(batches) == [] and children() == before


def destroy(shard, damage):
    if damage == "truncated":
        os.truncate(shard, 4096)
    if damage == "overwritten":
        with open(shard, "r+b") as file:
            file.seek(5000)
            file.write(b"\xff" * (shard.stat().st_size - 10000))


def test_a_reading_process_ignores_signals_and_its_death_is_one_sentence(corpus, drawn):
    before = children()
    expected = collect(pretraining_reader.read_batches(corpus, drawn, 0, 9))
    with pretraining_reader.read_batches(corpus, drawn, 0, 10**6, workers=1, prefetch=1) as batches:
        time.sleep(0.3)  # it imports what it needs
        send(children() - before, signal.SIGINT, signal.SIGTERM)
        got = [next(batches)]
        send(children() - before, signal.SIGINT, signal.SIGTERM)
        got += [next(batches) for _ in range(8)]
        assert_same([{key: np.array(value) for key, value in batch.items()} for batch in got], expected)
        send(children() - before, signal.SIGKILL)
        with pytest.raises(errors.RunError, match="fewer workers"):
            for batch in batches:
                del batch
    assert children() == before


def send(processes, *signals):
    for process in processes:
        for number in signals:
            os.kill(process, number)


def test_too_little_shared_memory_is_refused_beforehand(corpus, drawn, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(errors.InputError, match="0 MB are free.*workers to 0"):
        pretraining_reader.read_batches(corpus, drawn, 0, 1, workers=1)


def test_an_index_that_does_not_match_the_records_is_an_error(data):
    part = records.open_set(data[0], "one")
    part.samples[5] += 1
    with pytest.raises(errors.InputError, match="one/2.wav#1.*prepare one again"):
        corpora.Corpus([part]).read([4, 5])


def cropped(home, batches, mesh=None):
    mesh = mesh or sharding.make_mesh(1, jax.devices()[:1])
    crop = jax.jit(pretraining_data.make_crop(LAYOUT, mesh))
    for batch in batches:
        placed = {name: x.astype(np.int32).reshape(mesh.size, 1, -1, *x.shape[1:]) for name, x in batch.items()}
        audio = np.asarray(crop(home.blocks, jax.device_put(placed, sharding.over_batch(mesh, 0))))
        del batch["block_start"], batch["offset"]
        yield {"audio": audio.reshape(len(batch["index"]), -1), **batch}


@pytest.mark.parametrize("batching", ["pad", "crop"])
def test_the_resident_corpus_yields_the_stream_to_the_bit(corpus, drawn, batching, monkeypatch):
    monkeypatch.setattr(resident, "UPLOAD_BLOCKS", 17)  # many pieces, most with a clip over their edge
    home = resident.Resident(corpus, np.arange(len(corpus)))
    stream = collect(pretraining_reader.read_batches(corpus, drawn, 7, 60, batching=batching))
    assert_same(
        list(cropped(home, pretraining_data.resident_batches(home, corpus, drawn, 7, 60, batching=batching))), stream
    )


def test_the_resident_corpus_on_a_mesh_and_in_validation(corpus):
    mesh = sharding.make_mesh(2, jax.devices()[:4])
    rows = np.arange(0, len(corpus), 2)
    home = resident.Resident(corpus, rows, mesh)
    assert home.blocks.sharding.is_fully_replicated and len(home.blocks.devices()) == 4
    fixed = batch_plan.ValidationPlan(LAYOUT, corpus.samples, rows)
    got = pretraining_data.resident_batches(home, corpus, fixed, 0, fixed.steps_per_epoch)
    assert_same(list(cropped(home, got, mesh)), collect(validation_batches(corpus, rows, LAYOUT)))


def test_a_plan_over_rows_that_are_not_resident_is_refused(corpus, drawn):
    home = resident.Resident(corpus, np.arange(50))
    with pytest.raises(ValueError, match="is not resident"):
        list(pretraining_data.resident_batches(home, corpus, drawn, 0, drawn.steps_per_epoch))


def test_a_corpus_that_does_not_fit_says_how_much_it_needs(corpus, monkeypatch):
    class Small:
        def memory_stats(self):
            return {"bytes_limit": 2_000_000, "bytes_in_use": 1_500_000}

        def __str__(self):
            return "cuda:0"

    with pytest.raises(errors.InputError, match="needs 3.20 GB and cuda:0 has 0.00 GB free.*input to stream"):
        resident._check_memory([Small()], (900_000, 1600), 100_000)


HOST = """
import sys
import jax
import numpy as np

jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]), initialization_timeout=60)
from voc2vec_jax.datasets import corpora, resident
from voc2vec_jax.pretraining import batch_plan, data, reader
from voc2vec_jax.runs import sharding
import reader_test

corpus = corpora.open_corpus(sys.argv[3], ["one", "two"])
drawn = batch_plan.BatchPlan(reader_test.LAYOUT, corpus.samples, corpus.set_index, np.arange(101), seed=3)
mesh = sharding.make_mesh()
home = resident.Resident(corpus, np.arange(101), mesh)
place, crop = sharding.over_batch(mesh, 0), jax.jit(data.make_crop(reader_test.LAYOUT, mesh))
compared = 0
pairs = zip(data.resident_batches(home, corpus, drawn, 0, 12), reader.read_batches(corpus, drawn, 0, 12))
for batch, expected in pairs:
    batch = {name: x.astype(np.int32).reshape(4, 1, 1, *x.shape[1:]) for name, x in batch.items()}
    batch = {k: jax.make_array_from_callback(x.shape, place, lambda where, x=x: x[where]) for k, x in batch.items()}
    for shard in crop(home.blocks, batch).addressable_shards:
        assert shard.data.shape == (1, 1, 1, 16000), "every device crops its own groups"
        np.testing.assert_array_equal(shard.data[0, 0, 0], expected["audio"][shard.index[0].start])
        compared += 1
print(compared)
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def test_two_processes_hold_the_corpus_and_each_device_crops_its_own_rows(data, tmp_path):
    script, port = tmp_path / "host.py", str(free_port())
    script.write_text(HOST)
    environment = os.environ | {
        "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}{os.pathsep}{ROOT / 'tools'}",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    command = [sys.executable, script, port]
    hosts = [
        subprocess.Popen([*command, str(i), data[0]], env=environment, stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    try:
        compared = [int(host.communicate(timeout=120)[0].split()[-1]) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0] and min(compared) == 24


def test_the_benchmark_prints_a_figure_for_each_way(data):
    settings = data_benchmark.DataBenchmark(str(data[0]), ("one",), group_rows=1, workers=1, passes=1)
    figures = list(data_benchmark.figures(settings))
    assert [figure["figure"].split()[1] for figure in figures] == ["stream", "stream", "resident"]
    assert all(figure["best"] >= figure["audio_seconds_per_second"] > 0 and figure["clips"] == 61 for figure in figures)


@pytest.mark.parametrize(
    "fault, message",
    [
        ({"clips": 10, "passes": 1}, "10 clips are one step of --groups=1 --group_rows=16"),
        ({"mean_seconds": 0.0}, "--mean_seconds=0: give 0.5 to 10"),
        ({"mean_seconds": float("nan")}, "--mean_seconds=nan"),
        ({"threads": 0}, "--threads=0: give 1 or more"),
        ({"workers": -1}, "--workers=-1: give 1 or more"),
        ({"clips": 1}, "--clips=1: give 2 or more"),
    ],
)
def test_benchmark_numbers_that_make_no_sense_are_refused(fault, message):
    with pytest.raises(errors.InputError, match=message):
        next(data_benchmark.figures(data_benchmark.DataBenchmark(**fault)))


def test_benchmark_noise_has_the_mean_length_asked_for(tmp_path):
    corpus = data_benchmark._corpus(data_benchmark.DataBenchmark(clips=300, mean_seconds=2.0), tmp_path)
    assert abs(corpus.samples.mean() / 16000 - 2.0) < 0.1 and corpus.samples.max() <= 160000
