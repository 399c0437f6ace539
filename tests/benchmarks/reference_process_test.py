"""The reference process of a benchmark answers, and says why when it cannot."""

import importlib.util
import os
import time

import pytest
from benchmarks import reference_process

from voc2vec_jax import errors


def counting(start):
    numbers = iter(range(start, 100))
    return {"next": lambda: next(numbers), "process": os.getpid}


def failing(where):
    def fail():
        raise ValueError("no such luck")

    if where == "build":
        fail()
    return {"run": fail, "die": lambda: os._exit(3), "sleep": lambda: time.sleep(600)}


def test_functions_are_called_in_another_process():
    with reference_process.ReferenceProcess(counting, 7) as other:
        assert other.names == ["next", "process"]
        assert [other.call("next"), other.call("next")] == [7, 8]
        assert other.call("process") != os.getpid()


def test_a_failure_is_told():
    with pytest.raises(errors.RunError, match="no such luck"):
        reference_process.ReferenceProcess(failing, "build")
    with (
        reference_process.ReferenceProcess(failing, "call") as other,
        pytest.raises(errors.RunError, match="no such luck"),
    ):
        other.call("run")


def test_the_end_of_the_process_is_told():
    with (
        reference_process.ReferenceProcess(failing, "call") as other,
        pytest.raises(errors.RunError, match="ended with status 3"),
    ):
        other.call("die")


def test_leaving_in_the_midst_of_a_call_ends_it_without_a_word(capfd):
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), reference_process.ReferenceProcess(failing, "call") as other:
        other._pipe.send("sleep")
        raise KeyboardInterrupt
    assert time.monotonic() - began < 60 and not other._process.is_alive()
    assert capfd.readouterr().err == ""


def test_what_is_not_installed_is_named(monkeypatch):
    reference_process.check()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else name)
    with pytest.raises(errors.InputError, match="needs torch: pip install torch"):
        reference_process.check()
