"""Programs of several processes: join them by `jax.distributed`, stop at the same step, end with the same status."""

import functools
import os
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import clusters
from jax.experimental import multihost_utils

from voc2vec_jax import errors
from voc2vec_jax.runs import agreement, cli, joining, liveness, logs, program, signals

FLAGS = {
    "distributed": cli.Flag(
        "several processes: auto (SLURM, Kubernetes, Open MPI, TPU pods), off, or explicit with the next three flags",
        default="auto",
        choices=("auto", "off", "explicit"),
    ),
    "coordinator": cli.Flag("HOST:PORT of process 0, with explicit; else JAX_COORDINATOR_ADDRESS"),
    "processes": cli.Flag("number of processes, with explicit; else JAX_NUM_PROCESSES", kind=int),
    "process": cli.Flag("number of this process from 0, with explicit; else JAX_PROCESS_ID", kind=int),
    "local_devices": cli.Flag(
        "devices of this process, such as 0,1; default: all, or one a process on SLURM and Open MPI"
    ),
    "join_seconds": cli.Flag("how many seconds processes wait for each other at the start", default=300, kind=int),
}
_ENVIRONMENT = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "processes": "JAX_NUM_PROCESSES",
    "process": "JAX_PROCESS_ID",
}
_MARGIN_SECONDS = 60


@functools.cache
def _monitor() -> liveness.Monitor:
    """This process's monitor, started by the first call."""
    monitor = liveness.Monitor()
    monitor.start()
    return monitor


def join(arguments: cli.Arguments) -> None:
    """Connect this process with the others, if there are any. Call it before JAX touches a device.

    InputError for flags that contradict each other. A process that waits `join_seconds` in vain ends with status 1.
    """
    options = _options(arguments)
    if options is None:
        return
    if arguments.join_seconds < 1:
        raise errors.InputError(f"--join_seconds={arguments.join_seconds}: give 1 or more")
    cluster = options.pop("cluster")
    if cluster != "explicit":
        options = _found(cluster, options["local_device_ids"], arguments.join_seconds)
    if jax.config.jax_cpu_collectives_implementation is None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    _connect(options, arguments.join_seconds)
    _monitor()
    agreement.check_same({"--processes": agreement.process_count(), "the version of JAX": jax.__version__})
    logs.say(
        f"{agreement.process_count()} processes are connected ({cluster}); this is process 0 on {socket.gethostname()}"
    )


def _options(arguments: cli.Arguments) -> dict[str, Any] | None:
    """The options of `jax.distributed.initialize` and the name of the `cluster`; None for a single process."""
    named = {name: arguments.values[name] for name in _ENVIRONMENT}
    if arguments.distributed != "explicit":
        for name, value in named.items():
            if value is not None:
                raise errors.InputError(f"--{name}={value} needs --distributed=explicit")
    if arguments.distributed == "off":
        return None
    devices = _local_devices(arguments.local_devices)
    if arguments.distributed == "auto":
        cluster = _detected()
        return cluster and {"cluster": cluster, "local_device_ids": devices}
    for name, variable in _ENVIRONMENT.items():
        if named[name] is None:
            text = os.environ.get(variable)
            if text is None:
                raise errors.InputError(f"--distributed=explicit needs --{name} (or {variable})")
            named[name] = text if name == "coordinator" else _whole_number(variable, text)
    return {"cluster": "explicit", "local_device_ids": devices, **_checked(**named)}


def _checked(coordinator: str, processes: int, process: int) -> dict[str, Any]:
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise errors.InputError(f"--coordinator={coordinator} is not HOST:PORT, such as node001:8476")
    if not 0 <= process < processes:
        raise errors.InputError(f"--process={process} is none of 0 to {processes - 1} (--processes={processes})")
    return {
        "coordinator_address": coordinator,
        "num_processes": processes,
        "process_id": process,
        "cluster_detection_method": "deactivate",
    }


def _whole_number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise errors.InputError(f"{name}={text} is not a whole number")
    return int(text)


def _local_devices(text: str | None) -> list[int] | None:
    if not text:
        return None
    return [_whole_number("--local_devices", item) for item in text.split(",")]


def _detected() -> str | None:
    """The cluster that JAX detects; None for no cluster and for a job of one process."""
    known = [found for found in clusters.ClusterEnv._cluster_types if not found.opt_in_only_method]
    if "JOB_COMPLETION_INDEX" not in os.environ:  # a pod outside an indexed job, such as a notebook's
        known = [found for found in known if found.name != "k8s"]
    with warnings.catch_warnings(action="ignore"):
        cluster = next((found for found in known if found.is_env_present()), None)
    if cluster is None:
        return None
    try:
        return cluster.name if cluster.get_process_count() > 1 else None
    except (RuntimeError, ValueError, KeyError) as error:
        raise errors.InputError(
            f"{cluster.name} does not say how many processes there are ({_first_line(error)}): give "
            "--distributed=explicit or --distributed=off"
        ) from error


def _found(cluster: str, devices: list[int] | None, seconds: int) -> dict[str, Any]:
    """The options of `jax.distributed.initialize` as JAX finds them on a `cluster`. InputError if it cannot."""
    given = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if devices is None:
        devices = _local_devices(os.environ.get("JAX_LOCAL_DEVICE_IDS"))
    try:
        found = clusters.ClusterEnv.auto_detect_unset_distributed_params(given, None, None, devices, None, seconds)
    except (RuntimeError, ValueError, KeyError) as error:
        raise errors.InputError(
            f"{cluster} does not say how to connect the processes ({_first_line(error)}): give --distributed=explicit "
            "with --coordinator, --processes and --process, or --distributed=off"
        ) from error
    return {**_checked(*found[:3]), "local_device_ids": found[3]}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _connect(options: dict[str, Any], seconds: int) -> None:
    """Meet the other processes, then let the runtimes connect. Does not return when a process is asked to leave."""
    address, process, processes = (options[name] for name in ("coordinator_address", "process_id", "num_processes"))
    bind = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS")
    meeting = joining.Meeting(address, process, processes, seconds, bind)
    try:
        meeting.gather()
        meeting.watch_over(
            lambda: jax.distributed.initialize(
                **options,
                initialization_timeout=int(2 * joining.CONNECTING_SECONDS),
                heartbeat_timeout_seconds=liveness.HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=_MARGIN_SECONDS,
            )
        )
    except (Exception, KeyboardInterrupt) as error:
        # At once, because the thread that connects waits in the runtime, which nothing but its own limit ends.
        status, text = program.explain(error)
        if isinstance(error, joining.Ended):
            status, text = error.status, error.text
        meeting.tell(status, text)
        liveness.exit_now(status, text)


# --- stopping ---------------------------------------------------------------------------------------------------------


class Preemption(signals.StopSignal):
    """A stop at the same step in all processes, whichever got the signal, by JAX's preemption service.

    The service listens to SIGTERM; SIGINT is passed on to it. Call `at` at every step, from the first one on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._first: int | None = None

    def __enter__(self) -> "Preemption":
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: object) -> None:
        super()._handle(number, frame)
        os.kill(os.getpid(), signal.SIGTERM)

    def at(self, step: int) -> str | None:
        """The signal that asks to stop after `step`; None to go on."""
        if self._first is None:
            self._first = step
        # counted from 0, because after an early notice the service proposes the first step as the common one
        if multihost_utils.reached_preemption_sync_point(step - self._first):
            self.requested = self.requested or "SIGTERM"
            return self.requested
        return None


def stop_signal() -> signals.StopSignal:
    """A stop signal for a loop that all processes step through together."""
    return Preemption() if agreement.process_count() > 1 else signals.StopSignal()


def share_stop(stop: signals.StopSignal) -> signals.StopSignal:
    """For processes with a pace of their own: within seconds, a signal to one of them reaches all."""
    if agreement.process_count() > 1:
        _monitor().stop_signal = stop
    return stop


# --- the end ----------------------------------------------------------------------------------------------------------


def run(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """As `program.run`; several processes end together and with the same status."""
    return program.run(functools.partial(guarded, main), argv)


def guarded(main: Callable[[list[str]], int | None], argv: list[str]) -> int:
    """What `run` gives `program.run`."""
    try:
        status = main(argv) or errors.EXIT_DONE
    except (Exception, KeyboardInterrupt) as error:
        if agreement.process_count() == 1:
            raise
        if program.wants_traceback(argv):
            traceback.print_exception(error)
        _fail(error)
    if agreement.process_count() > 1:
        agreement.wait_for_all()
        _monitor().left.set()
        _monitor().join()
        jax.distributed.shutdown()
    return status


def _fail(error: BaseException) -> None:
    """Tell the others and leave with them. Does not return."""
    status, text = program.explain(error)
    if _is_of_runtime(error):  # probably another process died: the monitor names it and ends this one
        _monitor().own["broken"] = True
        time.sleep(2 * liveness.DEAD_SECONDS)
    _monitor().report({"status": status, "text": text})
    _monitor().join(2 * liveness.LEAVING_SECONDS)
    liveness.exit_now(status, text)


def _is_of_runtime(error: BaseException | None) -> bool:
    """Whether the runtime raised the error or its cause, for another reason than a lack of memory."""
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError):
            return "RESOURCE_EXHAUSTED" not in str(error)
        error = error.__cause__ or error.__context__
    return False
