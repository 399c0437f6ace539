"""What the processes of a run agree on: process 0 decides, the others hear of it through JAX's coordination service.

Nothing here touches a device. Every function but `count` and `index` is called by all processes in the same order.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jax._src import distributed

from voc2vec_jax import errors

PREFIX = "voc2vec_jax"
_WAIT_MS = 24 * 3600 * 1000  # a process that dies meanwhile ends the wait in other ways
_FAULTS = {kind.__name__: kind for kind in (errors.InputError, errors.RunError)}
_numbers = itertools.count()

T = TypeVar("T")


def client() -> Any:
    """The connection to the coordination service, None when this process is alone."""
    return distributed.global_state.client


def count() -> int:
    """The processes of this run."""
    return distributed.global_state.num_processes if client() is not None else 1


def index() -> int:
    """Which of them this one is."""
    return distributed.global_state.process_id if client() is not None else 0


def of_first(decide: Callable[[], T]) -> T:
    """`decide()` of process 0, a JSON value, in every process; its InputError or RunError is raised in every one."""
    if count() == 1:
        return decide()
    key = f"{PREFIX}/of_first/{next(_numbers)}"
    if index():
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


def first_alone(make: Callable[[], T]) -> T:
    """`make()` in every process, in process 0 before all others: it may leave files that they find."""
    if count() == 1:
        return make()
    made = []
    of_first(lambda: made.append(make()))
    return made[0] if made else make()


def same(values: Mapping[str, Any]) -> None:
    """InputError in a process that has other `values` than process 0, naming the first that differs."""
    if count() == 1:
        return
    own = json.loads(json.dumps(values))
    first = of_first(lambda: own)
    for name in [*first, *own]:
        if own.get(name) != first.get(name):
            raise errors.InputError(
                f"{name} is {own.get(name)} in process {index()} and {first.get(name)} in process 0: start all alike"
            )


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if count() > 1:
        client().wait_at_barrier(f"{PREFIX}/all/{next(_numbers)}", _WAIT_MS)
