"""How processes find each other: who comes, who ends, who is a stranger, and signals while they wait."""

import concurrent.futures
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import hosts
import pytest

from voc2vec_jax import errors
from voc2vec_jax.runs import joining


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(joining, "GREETING_SECONDS", 0.3)
    monkeypatch.setattr(joining, "STRANGER_SECONDS", 0.3)
    monkeypatch.setattr(joining, "TURN_SECONDS", 0.02)


@pytest.fixture
def address():
    return f"localhost:{hosts.free_port()}"


@pytest.fixture
def behind():
    """Runs functions in threads."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        yield pool.submit


def join(address, process, processes, connect=lambda: None, seconds=20):
    """Join as a process does, and say what became of it."""
    with contextlib.closing(joining.Meeting(address, process, processes, seconds)) as meeting:
        try:
            meeting.gather()
            meeting.watch_over(connect)
        except (errors.InputError, errors.RunError) as error:
            status = errors.EXIT_INPUT if isinstance(error, errors.InputError) else errors.EXIT_FAULT
            meeting.tell(status, f"error: {error}")
            return str(error)
        except joining.Ended as ended:
            meeting.tell(ended.status, ended.text)
            return ended.status, ended.text
        return "connected"


def connection(address):
    """A connection that waits until process 0 listens."""
    host, port = address.split(":")
    for _ in range(100):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection((host, int(port)))
        time.sleep(0.02)
    raise AssertionError("process 0 does not listen")


def test_all_are_connected_once_all_have_come_and_the_port_is_free_for_the_runtime(address, behind):
    barrier = threading.Barrier(3)
    opened = []

    def connect(process):
        if process == 0:
            opened.append(socket.create_server(("", int(address.split(":")[1]))))
        barrier.wait(20)

    ends = [behind(join, address, process, 3, lambda process=process: connect(process)) for process in (2, 1, 0)]
    assert [end.result() for end in ends] == ["connected"] * 3
    opened.pop().close()


def test_a_process_that_ends_is_named_and_takes_all_along(address, behind):
    ends = [behind(join, address, process, 4) for process in (0, 1)]
    with connection(address) as third:
        third.sendall(b'{"voc2vec_jax": {"process": 3, "processes": 4, "host": "node3"}}\n')
        third.recv(100)
    text = "error: process 3 of 4 on node3 ended before all were connected: run the same command again"
    assert ends[0].result() == (errors.EXIT_FAULT, text)
    assert ends[1].result() == (errors.EXIT_FAULT, text)


def test_an_end_while_the_runtime_connects_is_noticed(address, behind):
    connecting, ended = threading.Event(), threading.Event()

    def stuck():
        connecting.set()
        ended.wait(20)

    end = behind(join, address, 0, 2, stuck)
    with connection(address) as other:
        other.sendall(b'{"voc2vec_jax": {"process": 1, "processes": 2, "host": "node1"}}\n')
        assert connecting.wait(20)
    assert end.result()[1].startswith("error: process 1 of 2 on node1 ended")
    ended.set()


@pytest.mark.parametrize("listens", [True, False])
def test_something_else_at_the_port_is_no_reason_to_wait(listens, address):
    """As when process 0 has left for this reason."""
    with socket.socket() as other:
        other.bind(("localhost", int(address.split(":")[1])))
        if listens:
            other.listen()
        assert f"at {address} is something else than process 0 of this run" in join(address, 1, 2)
        with pytest.raises(errors.InputError, match=f"process 0 cannot open the port of {address} "):
            joining.Meeting(address, 0, 2, 1)


def test_who_did_not_come_is_named(address, behind):
    ends = [behind(join, address, 0, 4, seconds=0.8), behind(join, address, 2, 4)]
    missing = f"not all of 4 processes came to {address} within 0.8 s: start the others with this address"
    assert ends[0].result() == f"{missing} (missing: 1, 3)"
    assert ends[1].result() == (errors.EXIT_FAULT, f"error: {missing} (missing: 1, 3)")
    alone = join(address, 1, 2, seconds=0.3)
    assert alone == f"process 1 found no coordinator at {address} within 0.3 s: start process 0 there"


@pytest.mark.parametrize(
    ("process", "processes", "fault"),
    [
        (1, 3, "--processes is 3 in process 1 and 4 in process 0: start all alike"),
        (1, 4, "process 1 came twice to ADDRESS, from .*: give each its own --process"),
        (0, 4, "process 0 came twice to ADDRESS, from .*: give each its own --process"),
    ],
)
def test_processes_of_other_runs_are_refused_by_all(process, processes, fault, address, behind):
    ends = [behind(join, address, 0, 4), behind(join, address, 1, 4)]
    with connection(address) as other:
        time.sleep(0.3)  # behind process 1
        hello = {"process": process, "processes": processes, "host": "n"}
        other.sendall(json.dumps({"voc2vec_jax": hello}).encode() + b"\n")
        said = b""
        while found := other.recv(1000):
            said += found
    assert json.loads(said.splitlines()[-1])["end"]["status"] == errors.EXIT_INPUT
    pattern = fault.replace("ADDRESS", address)
    with pytest.raises(AssertionError, match=pattern):
        raise AssertionError(ends[0].result())
    with pytest.raises(AssertionError, match=pattern):
        raise AssertionError(ends[1].result())


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"[" * 9000, b"[1]\n", b'{"voc2vec_jax": 3}\n', b"x" * 9000]
)
def test_strangers_at_the_port_of_process_0_disturb_nobody(said, address, behind):
    end = behind(join, address, 0, 2)
    with connection(address) as stranger:
        stranger.sendall(said)
        stranger.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(100) == b""  # hung up on
    assert join(address, 1, 2) == "connected"
    assert end.result() == "connected"


WAITS = """
import sys
from voc2vec_jax.runs import joining, program
def main(argv):
    meeting = joining.Meeting(sys.argv[1], int(sys.argv[2]), 3, 100)
    print("waits", flush=True)
    try:
        meeting.gather()
    except joining.Ended as ended:
        print(ended.text)
        return ended.status
    except KeyboardInterrupt as error:
        meeting.tell(*program.explain(error))
        raise
sys.exit(program.run(main, []))
"""


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_is_heeded_while_waiting_and_stops_the_others(asked, address):
    command = [sys.executable, "-c", WAITS, address]
    start = [
        subprocess.Popen([*command, str(i)], cwd=hosts.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for i in (0, 1)
    ]
    assert [process.stdout.readline() for process in start] == ["waits\n"] * 2
    time.sleep(0.5)  # until they have met
    start[asked].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=20) for process in start]
    assert [process.returncode for process in start] == [errors.EXIT_STOPPED] * 2
    assert "stopped by SIGTERM" in said[asked][1] and "stopped by SIGTERM" in said[1 - asked][0]
