"""What several processes do together: each at its own pace, and a fault of one is a fault of all."""

import json

import pytest

from voc2vec_jax import errors
from voc2vec_jax.runs import agreement


class Service:
    """The coordination service as process `own` of two sees it, when the other has ended with `other`."""

    def __init__(self, own, other):
        self.own, self.other, self.told = own, other, {}

    def key_value_set(self, key, text):
        self.told[key] = json.loads(text)

    def blocking_key_value_get(self, key, wait_ms):
        mine = key.endswith(f"/{self.own}")
        assert not mine or key in self.told  # it has told the others before it waits for them
        return json.dumps(self.told[key] if mine else self.other)


@pytest.fixture
def join(monkeypatch):
    def two(own, other):
        service = Service(own, other)
        monkeypatch.setattr(agreement, "client", lambda: service)
        monkeypatch.setattr(agreement, "process_count", lambda: 2)
        monkeypatch.setattr(agreement, "process_index", lambda: own)
        return service

    return two


@pytest.mark.parametrize("own", [0, 1])
def test_each_process_keeps_its_own_value(own, join):
    service = join(own, {})
    assert agreement.together(lambda: {1, 2}) == {1, 2}
    assert list(service.told.values()) == [{}]


@pytest.mark.parametrize("kind", ["InputError", "RunError"])
@pytest.mark.parametrize("own", [0, 1])
def test_a_fault_of_the_other_is_raised_here_once_this_one_has_ended(own, kind, join):
    join(own, {"fault": kind, "text": "the disk is full"})
    ended = []
    with pytest.raises(getattr(errors, kind), match="^the disk is full$"):
        agreement.together(lambda: ended.append(True))
    assert ended


def fail(fault):
    raise fault


def test_a_fault_of_this_one_is_told_and_raised(join):
    service, fault = join(1, {}), errors.RunError("the loss is not finite")
    with pytest.raises(errors.RunError) as raised:
        agreement.together(lambda: fail(fault))
    assert raised.value is fault
    assert list(service.told.values()) == [{"fault": "RunError", "text": "the loss is not finite"}]


def test_of_two_faults_all_raise_the_first_processs(join):
    join(1, {"fault": "InputError", "text": "the first"})
    with pytest.raises(errors.InputError, match="the first"):
        agreement.together(lambda: fail(errors.RunError("the second")))


def test_alone_nothing_is_told():
    assert agreement.together(lambda: 3) == 3


@pytest.mark.parametrize("own", [0, 1])
def test_a_value_that_differs_is_a_fault_of_all(own, join):
    first, text = {"seed": 3, "depth": 12}, "seed is 4 in process 1 and 3 in process 0: start all alike"
    told = {"fault": "InputError", "text": text} if own else {}
    service = join(own, {"fault": "InputError", "text": text})
    if own:
        answers = iter([{"value": first}, {}, told])  # what process 0 has, how its comparison ended, and how this one
        service.blocking_key_value_get = lambda key, wait_ms: json.dumps(next(answers))
    with pytest.raises(errors.InputError, match=f"^{text}$"):
        agreement.check_same({**first, "seed": 4} if own else first)
    assert list(service.told.values())[-1] == told
