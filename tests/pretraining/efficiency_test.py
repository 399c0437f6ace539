"""What is said of a run's devices: utilisation of their peak, memory in use, time in which they waited for data."""

import math
import types

import jax
import pytest

from voc2vec_jax.models import flops, wav2vec2
from voc2vec_jax.planning import chips
from voc2vec_jax.pretraining import efficiency, step
from voc2vec_jax.runs import memory


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(efficiency.time, "monotonic", lambda: now[0])
    return now


def device(kind, platform="gpu", peak=None):
    return types.SimpleNamespace(
        device_kind=kind, platform=platform, memory_stats=lambda: peak and {"peak_bytes_in_use": peak}
    )


def on(monkeypatch, *devices):
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    monkeypatch.setattr(jax, "device_count", lambda: len(devices))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("TPU v5 lite", "v5e"), ("TPU v5", "v5p"), ("TPU v4", "v4"), ("NVIDIA H200", "h200"), ("cpu", None)],
)
def test_a_chip_is_found_by_jaxs_name_of_its_devices(kind, name):
    assert chips.of_kind(kind) is (chips.CHIPS[name] if name else None)


def test_utilisation_is_of_the_peak_of_all_devices_in_the_type_of_the_computation(monkeypatch):
    on(monkeypatch, *[device("NVIDIA H200", peak=peak) for peak in (5, 7)])
    row = efficiency.Efficiency("bfloat16", "highest").of_step(989.4e12, 2.0)
    assert row["mfu"] == pytest.approx(0.25) and row["memory_bytes"] == 7
    assert efficiency.Efficiency("float32", "highest").of_step(66.9e12, 1.0)["mfu"] == pytest.approx(0.5)


def test_what_is_not_known_is_a_null_and_a_dash(monkeypatch):
    on(monkeypatch, device("Another 1", peak=None))
    counted = efficiency.Efficiency("bfloat16", "highest")
    assert counted.of_step(1e12, 1.0) == {
        "step_seconds": 1.0,
        "mfu": None,
        "memory_bytes": None,
        "data_wait_share": 0.0,
    }
    assert counted.summary() == "model FLOP utilisation -, memory -, waiting for data 0.0% of the time"
    assert counted.summary() == "model FLOP utilisation -, memory -, waiting for data - of the time"


def test_the_memory_of_a_cpu_run_is_what_the_process_holds():
    before = memory.bytes_used()
    block = bytearray(b"x" * 200_000_000)
    assert memory.bytes_used() - before > 150_000_000 and len(block)


def test_waiting_counts_when_the_devices_are_idle(clock):
    def slow():
        for seconds in (3.0, 4.0, 5.0):
            clock[0] += seconds
            yield seconds

    counted = efficiency.Efficiency("float32", "highest")
    idle = iter([True, False, True])
    batches = counted.batches(slow(), lambda: next(idle))
    assert next(batches) == 3.0
    assert counted.of_step(1.0, 6.0)["data_wait_share"] == pytest.approx(0.5)
    assert next(batches) == 4.0
    assert counted.of_step(1.0, 6.0)["data_wait_share"] == 0
    assert list(batches) == [5.0]
    counted.restart()
    assert counted.of_step(1.0, 6.0)["data_wait_share"] == 0
    assert counted.summary().endswith("waiting for data 16.7% of the time")


def test_an_updates_operations_are_those_of_all_its_padded_clips():
    model = wav2vec2.Config()
    found = float(step.operations(model, (2, 3, 80_000)))
    assert found == pytest.approx(6 * math.fsum(flops.training(model, 80_000).values()), rel=1e-6)
