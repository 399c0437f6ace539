"""Several processes on loopback are one run: same numbers, other topologies, faults at any moment, one end for all."""

import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import hosts
import jax
import numpy as np
import pytest

from voc2vec_jax import datasets, errors
from voc2vec_jax.pretraining import efficiency
from voc2vec_jax.runs import checkpoint, cli, distributed, rows

CONFIG = "tests/helpers/cluster_config.py"
STEPS = 12
FAULTS = int(os.environ.get("VOC2VEC_FAULTS", "0"))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("synthetic", data_dir=folder, clips=60, progress=False)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def launch(cache, data_dir):
    """Starts a run on so many hosts of so many devices each."""

    def start(number, devices, workdir, *more):
        given = (f"--config={CONFIG}", f"--workdir={workdir}", f"--config.data_dir={data_dir}", *more)
        return hosts.start(cache, number, devices, "voc2vec_jax.train", *given)

    return start


@pytest.fixture(scope="module")
def whole(launch, tmp_path_factory):
    """The uninterrupted run of two processes with two devices each."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    statuses, said = hosts.finish(launch(2, 2, workdir))
    assert statuses == [0, 0], said
    assert "2 processes are connected" in said[0]
    assert "error" not in said[1] and "training clips" not in said[1]
    return workdir


@pytest.fixture(scope="module")
def waiting(cache):
    """Processes that wait for a dying one, of both kinds beside each other: they take long and compute nothing."""
    runs = {late: hosts.start(cache, 2, 1, "tests.helpers.waiting_program", f"--late={late}") for late in (True, False)}
    yield runs
    for process in itertools.chain.from_iterable(runs.values()):
        process.kill()
        if not process.stderr.closed:
            process.communicate()


def params_of(workdir, step=STEPS):
    return checkpoint.read(workdir / "checkpoints" / str(step))[0]["params"]


def identical(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(params_of(a)), jax.tree.leaves(params_of(b)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    for one, other in zip(rows_of(a), rows_of(b), strict=True):
        assert one.keys() == other.keys()
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def rows_of(workdir):
    timed = ("audio_seconds_per_second", *efficiency.FIELDS)
    return [{k: v for k, v in row.items() if k not in timed} for row in rows.read(workdir / "metrics.jsonl")]


def until(processes, workdir, step):
    """Wait until a step is written."""
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and any(row["step"] >= step for row in rows.read(metrics))):
        assert all(process.poll() is None for process in processes), hosts.finish(processes)
        time.sleep(0.01)


@pytest.mark.slow
def test_several_processes_compute_what_one_does(whole, launch, tmp_path):
    statuses, said = hosts.finish(launch(1, 1, tmp_path / "alone"))
    assert statuses == [0], said
    assert_close(whole, tmp_path / "alone")
    assert json.loads((whole / "env.json").read_text())["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("number, devices, more", [(1, 8, ()), (2, 1, ()), (1, 4, ("--config.fsdp=2",))])
def test_a_checkpoint_is_resumed_on_another_topology(number, devices, more, whole, launch, tmp_path):
    workdir = tmp_path / "moved"
    shutil.copytree(whole, workdir)
    for step in (10, 12):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    statuses, said = hosts.finish(launch(number, devices, workdir, *more))
    assert statuses == [0] * number, said
    assert f"resuming {workdir} from step 8" in said[0]
    assert_close(whole, workdir)


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_rerun_reaches_the_same_bits(whole, launch, tmp_path):
    workdir = tmp_path / "killed"
    processes = launch(2, 2, workdir)
    until(processes, workdir, 5)
    processes[1].kill()
    began = time.monotonic()
    statuses, said = hosts.finish(processes, timeout=60)
    assert time.monotonic() - began < 60
    assert statuses == [1, -signal.SIGKILL], said
    (sentence,) = [line for line in said[0].splitlines() if line.startswith("error: ")]
    assert sentence.startswith("error: process 1 of 2 on ") and "run the same command again" in sentence
    statuses, said = hosts.finish(launch(2, 2, workdir))
    assert statuses == [0, 0], said
    assert "resuming" in said[0]
    assert identical(params_of(workdir), params_of(whole))
    assert rows_of(workdir) == rows_of(whole)


@pytest.mark.slow
@pytest.mark.parametrize("late", [True, False])
def test_a_death_is_told_before_the_runtime_aborts_those_who_wait(late, waiting):
    statuses, said = hosts.finish(waiting[late], timeout=90)
    assert statuses == [1, -signal.SIGKILL], said
    assert "error: process 1 of 2 on " in said[0]


def test_a_port_that_is_taken_is_named(cache):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        address = f"localhost:{taken.getsockname()[1]}"
        given = f"--distributed=explicit --coordinator={address} --processes=2 --process=0".split()
        statuses, said = hosts.run(cache, 1, 1, "tests.helpers.waiting_program", *given)
    assert statuses == [2]
    assert f"error: process 0 cannot open the port of {address} (" in said[0]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_process_leaves_though_its_log_is_full(stream):
    program = "from voc2vec_jax.runs import liveness; print('x'); liveness.exit_now(7, 'the fault')"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, cwd=hosts.ROOT, env=buffered, text=True, **streams)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 7
    assert err is None or "the fault" in err.splitlines()


def test_no_directive_of_the_slurm_script_comes_after_a_command():
    """For sbatch reads none of those."""
    lines = (hosts.ROOT / "tools" / "cluster" / "slurm.sbatch").read_text().splitlines()
    commands = [number for number, line in enumerate(lines) if line.strip() and not line.startswith("#")]
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert len(directives) >= 10 and max(directives) < min(commands)


@pytest.mark.slow
def test_a_signal_to_any_process_saves_on_all(whole, launch, tmp_path):
    workdir = tmp_path / "stopped"
    processes = launch(2, 2, workdir, "--config.checkpoint_every_steps=100")
    until(processes, workdir, 2)
    processes[1].send_signal(signal.SIGTERM)
    statuses, said = hosts.finish(processes)
    assert statuses == [75, 75], said
    last = list(rows.read(workdir / "metrics.jsonl"))[-1]["step"]
    assert checkpoint.steps(workdir / "checkpoints") == [last]
    assert f"after step {last}; everything is saved" in said[0]
    statuses, said = hosts.finish(launch(2, 2, workdir))
    assert statuses == [0, 0], said
    assert identical(params_of(workdir), params_of(whole))


@pytest.mark.slow
def test_flipped_bytes_are_passed_over_by_all_and_a_refusal_is_said_once(whole, launch, tmp_path):
    workdir = tmp_path / "flipped"
    shutil.copytree(whole, workdir)
    largest = max((workdir / "checkpoints" / "12").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 255
    largest.write_bytes(content)
    running = launch(2, 2, workdir)
    refused = launch(2, 2, whole, "--config.peak_lr=0.5")
    statuses, said = hosts.finish(running)
    assert statuses == [0, 0], said
    assert "the checkpoint of step 12 is corrupt" in said[0] and "resuming from step 10" in said[0]
    assert identical(params_of(workdir), params_of(whole))
    statuses, said = hosts.finish(refused)
    assert statuses == [2, 2], "".join(said)
    assert "".join(said).count("peak_lr was 0.001, now 0.5") == 1


@pytest.mark.slow
def test_processes_with_other_data_do_not_train_together(cache, data_dir, tmp_path):
    """One finds another set at the same relative path."""
    places = [tmp_path / "0", tmp_path / "1"]
    for place, clips in zip(places, (60, 24)):
        datasets.prepare("synthetic", data_dir=place / "data", clips=clips, progress=False)
    given = (f"--config={hosts.ROOT / CONFIG}", f"--workdir={tmp_path / 'run'}", "--config.data_dir=data")
    statuses, said = hosts.finish(hosts.start(cache, 2, 1, "voc2vec_jax.train", *given, places=places))
    assert statuses == [2, 2], said
    assert "error: the fingerprint of what --config.data_dir holds (corpus) is " in said[0]
    assert said[0].rstrip().endswith(" in process 0: start all alike")


@pytest.mark.slow
def test_processes_that_do_not_find_each_other_say_so(launch, tmp_path):
    """Each alone in its run, and one that was started otherwise than process 0."""
    alone = launch(2, 1, tmp_path / "run", "--join_seconds=4"), launch(2, 1, tmp_path / "run", "--join_seconds=4")
    for number, processes in enumerate(alone):
        processes[1 - number].kill()
    waits = [hosts.finish(processes) for processes in alone]
    statuses, said = ([wait[k][number] for number, wait in enumerate(waits)] for k in (0, 1))
    assert statuses == [1, 1]
    assert "error: not all of 2 processes came to localhost:" in said[0]
    assert "error: process 1 found no coordinator at localhost:" in said[1]


@pytest.mark.skipif(not FAULTS, reason="four processes are much for a small machine: with VOC2VEC_FAULTS only")
def test_four_processes_compute_the_same_and_are_resumed_by_fewer(whole, launch, tmp_path):
    statuses, said = hosts.finish(launch(4, 2, tmp_path / "four"))
    assert statuses == [0] * 4, said
    assert_close(whole, tmp_path / "four")
    for number, devices in ((1, 8), (2, 1)):
        workdir = tmp_path / f"moved to {number} x {devices}"
        shutil.copytree(tmp_path / "four", workdir)
        for step in (10, 12):
            shutil.rmtree(workdir / "checkpoints" / str(step))
        statuses, said = hosts.finish(launch(number, devices, workdir))
        assert statuses == [0] * number and "from step 8" in said[0], said
        assert_close(whole, workdir)


@pytest.mark.skipif(not FAULTS, reason="VOC2VEC_FAULTS says how many")
def test_random_faults_in_a_row(whole, launch, tmp_path):
    """One run after another, each until it ends in spite of its faults."""
    draw, number = random.Random(1), 0
    for run in itertools.count():
        workdir, statuses = tmp_path / f"run {run}", None
        while statuses != [0, 0]:
            processes = launch(2, 2, workdir)
            time.sleep(draw.uniform(4, 12) if number < FAULTS else 0)
            victim, what = draw.choice(processes), draw.choice([signal.SIGKILL, signal.SIGTERM])
            faulty = number < FAULTS and all(process.poll() is None for process in processes)
            if faulty:
                number += 1
                victim.send_signal(what)
            began = time.monotonic()
            statuses, said = hosts.finish(processes, timeout=180)
            if faulty:
                taken = time.monotonic() - began
                print(f"fault {number}: {what.name} to {processes.index(victim)}: {statuses}, {taken:.1f} s")
            else:
                assert statuses == [0, 0], said
        assert identical(params_of(workdir), params_of(whole))
        assert rows_of(workdir) == rows_of(whole)
        print(f"run {run} ended with the bits of the uninterrupted one")
        if number == FAULTS:
            break


WRONG = {
    "missing": (["--distributed=explicit", "--process=0"], "needs --coordinator (or JAX_COORDINATOR_ADDRESS)"),
    "address": (["--distributed=explicit", "--coordinator=x", "--processes=2", "--process=0"], "HOST:PORT"),
    "number": (["--distributed=explicit", "--coordinator=x:1", "--processes=2", "--process=2"], "none of 0 to 1"),
    "unused": (["--processes=2"], "--processes=2 needs --distributed=explicit"),
    "devices": (["--distributed=explicit", "--local_devices=a"], "--local_devices=a is not a whole number"),
    "word": (["--distributed=on"], "none of auto, off, explicit"),
}


@pytest.mark.parametrize("case", WRONG)
def test_flags_that_do_not_fit_are_one_sentence(case, monkeypatch):
    given, expected = WRONG[case]
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    with pytest.raises(errors.InputError, match="^[^\n]*$") as caught:
        distributed.join(cli.parse(given, flags=distributed.FLAGS, program="x"))
    assert expected in str(caught.value)


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[01-02]", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize("tasks, expected", [("16", "slurm"), ("1", None)])
def test_a_cluster_is_found_unless_it_is_of_one_process(tasks, expected, monkeypatch):
    for name, value in {**SLURM, "SLURM_NTASKS": tasks}.items():
        monkeypatch.setenv(name, value)
    found = distributed._options(cli.parse([], flags=distributed.FLAGS, program="x"))
    assert found == (expected and {"cluster": expected, "local_device_ids": None})
    off = cli.parse(["--distributed=off"], flags=distributed.FLAGS, program="x")
    assert distributed._options(off) is None


def test_half_of_slurms_variables_and_a_notebooks_pod_are_no_cluster(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert distributed._options(cli.parse([], flags=distributed.FLAGS, program="x")) is None
