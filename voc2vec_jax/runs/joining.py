"""How the processes of a run find each other, before JAX's runtime connects them: it hears no signal while it waits.

Process 0 listens at the coordinator's port until all others have come, and then leaves the port to the runtime's
service. The connections stay until the runtime has connected everybody: one that closes earlier is a process that
ended, and all leave. Both sides send lines of JSON, the first of which shows that no stranger speaks. A signal is
heeded at any time, since the main thread waits in Python. Imports no JAX.
"""

import contextlib
import errno
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from voc2vec_jax import errors

TURN_SECONDS = 0.2
GREETING_SECONDS = 5.0  # how long the other side may take to show who it is
STRANGER_SECONDS = 20.0  # how long something else may hold the port: an earlier run may be leaving
CONNECTING_SECONDS = 60.0  # how long the runtime may take once all processes are there
LINE_BYTES = 4096
STRANGERS = 64  # connections without a greeting at a time
_HELLO = "voc2vec_jax"
# Without an answer for 25 s, a connection counts as closed: its host has lost its power or its network.
_KEEP_ALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class Ended(Exception):
    """All processes leave with this status and text, by the word of process 0 or because one of them is gone."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Link:
    """A connection to another process, which never waits."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE:
            if hasattr(socket, name):  # absent on some systems
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.connection, self.opened = connection, time.monotonic()
        self.closed = self.connected = False  # `connected`: the runtime of the other side has everybody
        self.host = ""
        self._bytes = b""

    def send(self, **what: Any) -> None:
        """Send one line; a closed connection is noticed by `receive`."""
        with contextlib.suppress(OSError):
            self.connection.send(json.dumps(what).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next line if one has come. Sets `closed` at the end of the connection and for strange lines."""
        if b"\n" not in self._bytes:
            try:
                found = self.connection.recv(LINE_BYTES)
            except BlockingIOError:
                return None
            except OSError:
                found = b""
            self._bytes += found
            self.closed = self.closed or not found or len(self._bytes) > 2 * LINE_BYTES
        line, end, rest = self._bytes.partition(b"\n")
        if not end:
            return None
        self._bytes = rest
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        self.closed = self.closed or not isinstance(said, dict)
        return said if isinstance(said, dict) else None

    def close(self) -> None:
        self.connection.close()


class Meeting:
    """The connections of one process to process 0, or of process 0 to all others.

    `address` is HOST:PORT of process 0, `bind` the port that it opens if that is another one (and its HOST).
    """

    def __init__(
        self, address: str, process: int, processes: int, seconds: int | float, bind: str | None = None
    ) -> None:
        self.address, self.process, self.processes = address, process, processes
        self._seconds, self._deadline = seconds, time.monotonic() + seconds
        self._links: dict[int, Link] = {}
        self._greeting: list[Link] = []
        self._listener = None if process else _listen(bind or address, address)

    def gather(self) -> None:
        """Return once all processes are there. RunError after `seconds`, InputError for another run's process."""
        if self.process:
            self._links[0] = self._found()
            while not self._turn("go"):
                self._check_time(f"not all processes came to {self.address}", "see that all of them were started")
            return
        with self._listener:
            while missing := [index for index in range(1, self.processes) if index not in self._links]:
                self._accept()
                self._turn()
                shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
                self._check_time(
                    f"not all of {self.processes} processes came to {self.address}",
                    f"start the others with this address (missing: {shown})",
                )
        for link in self._links.values():
            link.send(go=True)

    def watch_over(self, connect: Callable[[], Any]) -> None:
        """`connect()` in a thread, while signals and the ends of others are heeded. What it raises is raised.

        After any other exception the thread may still wait: leave by `os._exit`.
        """
        faults: list[BaseException] = []

        def run() -> None:
            try:
                connect()
            except BaseException as error:
                faults.append(error)

        thread = threading.Thread(target=run, name="connect", daemon=True)
        self._seconds, self._deadline = CONNECTING_SECONDS, time.monotonic() + CONNECTING_SECONDS
        thread.start()
        while thread.is_alive():
            self._turn()
            self._check_time(f"the runtime at {self.address} did not connect all processes", "run the command again")
        if faults:
            raise faults[0]
        self.close(connected=True)

    def tell(self, status: int, text: str) -> None:
        """Make all other processes leave with this status and text."""
        for link in self._links.values():
            link.send(end={"status": status, "text": text})

    def close(self, **last: Any) -> None:
        """End all connections, with a last word."""
        for link in [*self._links.values(), *self._greeting]:
            link.send(**last)
            link.close()
        self._links, self._greeting = {}, []
        if self._listener is not None:
            self._listener.close()

    def _check_time(self, fault: str, remedy: str) -> None:
        if time.monotonic() > self._deadline:
            raise errors.RunError(f"{fault} within {self._seconds:g} s: {remedy}")

    def _turn(self, awaited: str = "") -> bool:
        """Wait a moment and hear what comes; whether a line with `awaited` was among it. Ended if a process left."""
        heard = False
        with selectors.DefaultSelector() as ready:
            for link in [*self._links.values(), *self._greeting]:
                ready.register(link.connection, selectors.EVENT_READ)
            if self._listener is not None and self._listener.fileno() >= 0:
                ready.register(self._listener, selectors.EVENT_READ)
            ready.select(TURN_SECONDS)
        for index, link in list(self._links.items()):
            while said := link.receive():
                link.connected |= "connected" in said
                heard |= awaited in said
                if isinstance(said.get("end"), dict):
                    self._leave(index, said["end"])
            if link.connected:
                self._links.pop(index).close()
            elif link.closed:
                self._leave(index, None)
        self._greet()
        return heard

    def _leave(self, index: int, end: Any) -> None:
        """Leave because process `index` asks for it, or is gone (None). Process 0 takes all others along."""
        if end is None:
            gone = f"{index} of {self.processes} on {self._links[index].host}"
            text = f"error: process {gone} ended before all were connected: run the same command again"
            status = errors.EXIT_FAULT
        else:
            status, text = end.get("status"), str(end.get("text"))[:1000]
            status = status if status in (errors.EXIT_INPUT, errors.EXIT_STOPPED) else errors.EXIT_FAULT
            text += f" (process {index} on {self._links[index].host})" if index else ""
        raise Ended(status, text)

    # --- process 0 ----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while len(self._greeting) < STRANGERS + self.processes:
                self._greeting.append(Link(self._listener.accept()[0]))

    def _greet(self) -> None:
        """Take those who say who they are; drop those who say anything else, or nothing for too long."""
        for link in list(self._greeting):
            said = link.receive()
            hello = said.get(_HELLO) if said else None
            if isinstance(hello, dict):
                self._greeting.remove(link)
                self._admit(link, hello)
            elif said or link.closed or time.monotonic() - link.opened > GREETING_SECONDS:
                self._greeting.remove(link)
                link.close()

    def _admit(self, link: Link, hello: dict[str, Any]) -> None:
        link.host = str(hello.get("host", "?"))[:100]
        link.send(**self._hello())
        index, processes = hello.get("process"), hello.get("processes")
        fault = None
        if processes != self.processes:
            fault = f"--processes is {processes} in process {index} and {self.processes} in process 0: start all alike"
        elif index in self._links or index not in range(1, self.processes):
            hosts = f"{socket.gethostname() if index == 0 else self._links[index].host} and {link.host}"
            fault = f"process {index} came twice to {self.address}, from {hosts}: give each its own --process"
        if fault is not None:
            link.send(end={"status": errors.EXIT_INPUT, "text": f"error: {fault}"})
            link.close()
            raise errors.InputError(fault)
        self._links[index] = link

    # --- the others ---------------------------------------------------------------------------------------------------

    def _hello(self) -> dict[str, Any]:
        return {_HELLO: {"process": self.process, "processes": self.processes, "host": socket.gethostname()}}

    def _found(self) -> Link:
        """The connection to process 0, once it answers. InputError when something else does."""
        stranger_since = None
        while True:
            link, answered = self._tried()
            if link is not None:
                return link
            stranger_since = (stranger_since or time.monotonic()) if answered else None
            if stranger_since and time.monotonic() - stranger_since > STRANGER_SECONDS:
                raise errors.InputError(
                    f"at {self.address} is something else than process 0 of this run: give all processes another "
                    "--coordinator"
                )
            self._check_time(f"process {self.process} found no coordinator at {self.address}", "start process 0 there")
            time.sleep(TURN_SECONDS)

    def _tried(self) -> tuple[Link | None, bool]:
        """A connection to process 0, or None and whether something else holds the port."""
        host, _, port = self.address.rpartition(":")
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=GREETING_SECONDS)
        except ConnectionRefusedError:
            return None, _held_here(host.strip("[]"), int(port))
        except OSError:
            return None, False
        link = Link(connection)
        link.send(**self._hello())
        end = time.monotonic() + GREETING_SECONDS
        while time.monotonic() < end and not link.closed:
            said = link.receive()
            if said and isinstance(said.get(_HELLO), dict):
                link.host = str(said[_HELLO].get("host", "?"))[:100]
                return link, True
            link.closed = link.closed or said is not None
            time.sleep(TURN_SECONDS / 4)
        link.close()
        return None, True


def _listen(bind: str, address: str) -> socket.socket:
    """The opened port of process 0. InputError if it is taken: the runtime would end in a segmentation fault."""
    host, _, port = bind.rpartition(":")
    host = "" if bind == address else host.strip("[]")
    families = [socket.AF_INET6, socket.AF_INET] if not host and socket.has_dualstack_ipv6() else [socket.AF_INET]
    families = [socket.AF_INET6] if ":" in host else families
    for family in families:
        both = family == socket.AF_INET6 and not host
        try:
            listener = socket.create_server((host, int(port)), family=family, backlog=1024, dualstack_ipv6=both)
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", None) in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and family != families[-1]:
                continue  # a system without IPv6
            raise errors.InputError(
                f"process 0 cannot open the port of {address} ({error}): give all processes another --coordinator"
            ) from error
        listener.setblocking(False)
        return listener
    raise AssertionError("no family")


def _held_here(host: str, port: int) -> bool:
    """Whether `host` is this one and its port is taken by something that does not listen, as process 0 will find."""
    for name in (host, ""):
        with socket.socket() as probe:
            # With this option, and as it does not listen, it is never in the way of process 0.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((name, port))
            except (OSError, OverflowError) as error:
                return getattr(error, "errno", None) == errno.EADDRINUSE
    return False
