"""Which processes of a run are alive, and how the others end when one dies.

A thread in each process, the monitor, sends process 0 a beat every BEAT_SECONDS and learns from it whether all must
end or stop. Processes leave by `os._exit`, because the runtime's shutdown would wait for the dead one.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from typing import Any

import jax

from voc2vec_jax import errors
from voc2vec_jax.runs import agreement, signals

# The runtime's own limit, after which it aborts every process without naming the dead one. Its beats are half of that
# apart, so it may abort as early as 25 s after a death. The monitor must be faster.
HEARTBEAT_SECONDS = 50
DEAD_SECONDS = 16  # without a beat: the process is dead
BROKEN_SECONDS = 8  # the same, once a collective has failed
BEAT_SECONDS = 1.0
GRACE_SECONDS = 1.0  # from the others' word that they leave to the end of process 0
LEAVING_SECONDS = 10  # how long process 0, which runs the service, waits for the others to leave


class Monitor(threading.Thread):
    """Sends beats, and obeys process 0, which judges everybody's beats: to end, or to stop.

    Keys of the service: `live/<i>` is what process i reports of itself, `all` what process 0 orders.
    """

    def __init__(self) -> None:
        super().__init__(name="monitor", daemon=True)
        self.client, self.index, self.count = agreement.client(), agreement.process_index(), agreement.process_count()
        self.own: dict[str, Any] = {"host": socket.gethostname()}
        self.all: dict[str, Any] = {}
        self.stop_signal: signals.StopSignal | None = None
        self.left = threading.Event()
        self._seen: dict[int, tuple[int | None, float]] = {}
        self._hosts: dict[int, str] = {}
        self.tell(beat=0)

    def run(self) -> None:
        beat = 0
        while not self.left.wait(BEAT_SECONDS):
            beat += 1
            self._share_stop()
            try:
                self.tell(beat=beat)
                if self.index == 0:
                    self._judge()
                elif found := self._heard():
                    self.all = found
            except jax.errors.JaxRuntimeError:  # the service is gone: the runtime will end this process
                continue
            if "end" in self.all:
                self._end(self.all["end"])

    def tell(self, **what: Any) -> None:
        """Report `what` of this process."""
        self.own |= what
        self.client.key_value_set(f"{agreement.PREFIX}/live/{self.index}", json.dumps(self.own), allow_overwrite=True)

    def tell_all(self, **what: Any) -> None:
        """Order `what`, in process 0. The first `end` counts."""
        self.all = {**what, **self.all}
        self.client.key_value_set(f"{agreement.PREFIX}/all", json.dumps(self.all), allow_overwrite=True)

    def report(self, fault: dict[str, Any]) -> None:
        """End all processes because of this one's fault."""
        try:
            if self.index:
                self.tell(fault=fault)
            else:
                self.tell_all(end=fault)
        except jax.errors.JaxRuntimeError:  # the service is gone
            exit_now(fault["status"], fault["text"])

    def _heard(self) -> dict[str, Any] | None:
        try:
            return json.loads(self.client.key_value_try_get(f"{agreement.PREFIX}/all"))
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error):
                return None
            raise

    def live(self) -> dict[int, dict[str, Any]]:
        """What every process has reported of itself."""
        pairs = self.client.key_value_dir_get(f"{agreement.PREFIX}/live/")
        return {int(key.rsplit("/", 1)[1]): json.loads(text) for key, text in pairs}

    def _judge(self) -> None:
        """Find out, in process 0, who is dead, who failed and who was asked to stop."""
        now, live = time.monotonic(), self.live()
        broken = any(said.get("broken") for said in live.values())
        limit = BROKEN_SECONDS if broken else DEAD_SECONDS
        for process in range(self.count):
            said = live.get(process, {})  # empty for a process that died while joining
            self._hosts[process] = said.get("host", "a host that never spoke")
            if "fault" in said and process:
                self.tell_all(end={**said["fault"], "process": process})
            if "stop" in said and "stop" not in self.all:
                self.tell_all(stop=said["stop"])
            if process not in self._seen or self._seen[process][0] != said.get("beat"):
                self._seen[process] = (said.get("beat"), now)
            elif now - self._seen[process][1] > limit and not said.get("gone"):
                self.tell_all(
                    end={"status": errors.EXIT_FAULT, "dead": process, "text": self._obituary(process, limit)}
                )

    def _obituary(self, process: int, seconds: float) -> str:
        return (
            f"error: process {process} of {self.count} on {self._hosts[process]} died (no sign of life for "
            f"{seconds:g} s): run the same command again, it goes on from the last complete checkpoint"
        )

    def _share_stop(self) -> None:
        """Pass a stop signal on, in both directions, if this process shares one."""
        if self.stop_signal is None:
            return
        if self.stop_signal.requested is None and "stop" in self.all:
            self.stop_signal.requested = f"{self.all['stop']} to another process"
        elif self.stop_signal.requested:
            self.own.setdefault("stop", self.stop_signal.requested)

    def _end(self, end: dict[str, Any]) -> None:
        """Leave because another process failed or died. Process 0 says why; of a death, every process does."""
        process = end.get("process")
        text = end["text"] if "dead" in end or self.index == 0 else None
        if self.index == 0 and process:
            text = f"{text} (process {process} on {self._hosts.get(process, '?')})"
        leave_at_once(self, end["status"], text)


def leave_at_once(monitor: Monitor, status: int, text: str | None) -> None:
    """Exit without the runtime's shutdown. Process 0 leaves last: it runs the service, and the others die with it."""
    try:
        monitor.tell(gone=True)
        end = time.monotonic() + LEAVING_SECONDS
        while monitor.index == 0 and time.monotonic() < end and not _all_gone(monitor):
            time.sleep(BEAT_SECONDS / 10)
        if monitor.index == 0:
            time.sleep(GRACE_SECONDS)
    except jax.errors.JaxRuntimeError:
        pass  # the service is gone, and nobody is left to tell
    exit_now(status, text)


def _all_gone(monitor: Monitor) -> bool:
    dead = monitor.all.get("end", {}).get("dead")
    live = monitor.live()
    return all(live.get(process, {}).get("gone") for process in range(monitor.count) if process != dead)


def exit_now(status: int, text: str | None) -> None:
    """Leave at once, even when nothing can be written any more (a log on a full disk)."""
    try:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if text:
            with contextlib.suppress(OSError):
                os.write(2, f"{text}\n".encode())
    finally:
        os._exit(status)
