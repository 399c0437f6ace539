"""Decisions that all processes of a run share: process 0 decides and tells the others, without touching a device.

The channel is JAX's coordination service. All processes call each function in the same order, except `process_count`
and `process_index`, which anyone may call at any time.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jax._src import distributed

from voc2vec_jax import errors

PREFIX = "voc2vec_jax"
_WAIT_MS = 24 * 3600 * 1000  # long, because `liveness` ends the wait when a process dies
_FAULTS = {kind.__name__: kind for kind in (errors.InputError, errors.RunError)}
_numbers = itertools.count()

T = TypeVar("T")


def client() -> Any:
    """The connection to the coordination service; None when this process is alone."""
    return distributed.global_state.client


def process_count() -> int:
    """How many processes this run has."""
    return distributed.global_state.num_processes if client() is not None else 1


def process_index() -> int:
    """The number of this process, from 0."""
    return distributed.global_state.process_id if client() is not None else 0


def decided_by_first(decide: Callable[[], T]) -> T:
    """`decide()` of process 0, a JSON value, in every process. Its InputError or RunError is raised in every one."""
    if process_count() == 1:
        return decide()
    key = f"{PREFIX}/decided_by_first/{next(_numbers)}"
    if process_index():
        answer = json.loads(client().blocking_key_value_get(key, _WAIT_MS))
        if "fault" in answer:
            raise _FAULTS[answer["fault"]](answer["text"])
        return answer["value"]
    try:
        value = decide()
    except tuple(_FAULTS.values()) as error:
        client().key_value_set(key, json.dumps({"fault": type(error).__name__, "text": str(error)}))
        raise
    client().key_value_set(key, json.dumps({"value": value}))
    return value


def together(make: Callable[[], T]) -> T:
    """`make()` in every process, each at its own pace; returns when all have ended.

    An InputError or RunError of one is raised in every one, that of the lowest process where there are several: no
    process waits for another that has given up. `make` must not call functions of this module.
    """
    if process_count() == 1:
        return make()
    key, own, value = f"{PREFIX}/together/{next(_numbers)}", None, None
    try:
        value = make()
    except tuple(_FAULTS.values()) as error:
        own = error
    ended = {"fault": type(own).__name__, "text": str(own)} if own else {}
    client().key_value_set(f"{key}/{process_index()}", json.dumps(ended))
    for index in range(process_count()):
        answer = json.loads(client().blocking_key_value_get(f"{key}/{index}", _WAIT_MS))
        if "fault" in answer:
            raise own if own and index == process_index() else _FAULTS[answer["fault"]](answer["text"])
    return value


def first_before_others(make: Callable[[], T]) -> T:
    """`make()` in every process, in process 0 before the others, which may use files that it leaves.

    Faults are raised as by `together`.
    """
    if process_count() == 1:
        return make()
    made = []
    decided_by_first(lambda: made.append(make()))
    return together(lambda: made[0] if made else make())


def check_same(values: Mapping[str, Any]) -> None:
    """InputError in every process if the `values` of one differ from those of process 0; it names the first difference.

    `values` are JSON values by what they are, in words.
    """
    if process_count() == 1:
        return
    own = json.loads(json.dumps(values))
    first = decided_by_first(lambda: own)

    def compare() -> None:
        for name in [*first, *own]:
            if own.get(name) != first.get(name):
                here = f"{own.get(name)} in process {process_index()}"
                raise errors.InputError(f"{name} is {here} and {first.get(name)} in process 0: start all alike")

    together(compare)


def wait_for_all() -> None:
    """Return when every process has called this."""
    if process_count() > 1:
        client().wait_at_barrier(f"{PREFIX}/all/{next(_numbers)}", _WAIT_MS)
