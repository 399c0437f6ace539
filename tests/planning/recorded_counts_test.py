"""What the base programs cost on accelerators, counted from the programs compiled for them, stays within 5 %.

`python tests/planning/recorded_counts_test.py [PROGRAM]` compiles, prints and records them anew, after a change that
is meant. It needs the compilers of the extras plan-tpu and plan-cuda, and some minutes.
"""

import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

import compilers  # noqa: E402
import jax  # noqa: E402

from voc2vec_jax.planning import counts  # noqa: E402
from voc2vec_jax.pretraining import dry_run  # noqa: E402
from voc2vec_jax.runs import configuration  # noqa: E402

pytestmark = pytest.mark.accelerator
RECORDED = pathlib.Path(__file__).with_name("recorded_counts.json")
TOLERANCE = 0.05


def update(machine, micros=1):
    """The update of the paper's model: 8 clips of 10 s a device and micro-batch, in bfloat16."""
    config = configuration.load(str(ROOT / "configs" / "voc125.py"))
    config.batch_seconds = 80.0 * len(machine.devices) * micros
    config.groups_per_device, config.remat, config.fsdp, config.dtype = 1, "none", 1, "bfloat16"
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    return dry_run.plan(config, machine)


PROGRAMS = {
    "update v5e:1x1": lambda: update(compilers.machine("v5e:1x1")),
    "update v5e:2x4": lambda: update(compilers.machine("v5e:2x4"), micros=4),
    "update h100": lambda: update(compilers.machine("h100")),
}


def figures(plan):
    """The counts of a plan's program, of one device."""
    counted = counts.count(plan.compiled.text, [plan.machine.near[device.id] for device in plan.machine.devices])
    found = {
        "temporary_bytes": plan.compiled.temporary_bytes,
        "traffic_bytes": counted.traffic_bytes,
        "collectives": sum(one.times for one in counted.collectives),
        "collective_bytes": sum(one.times * one.payload_bytes for one in counted.collectives),
    }
    return found | ({"cycles": counted.cycles} if counted.cycles else {})


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_base_program_costs_what_was_recorded(program):
    found, recorded = figures(PROGRAMS[program]()), json.loads(RECORDED.read_text())[program]
    assert found.keys() == recorded.keys()
    off = {
        name: f"{value:.4g}, recorded {recorded[name]:.4g}"
        for name, value in found.items()
        if abs(value - recorded[name]) > TOLERANCE * recorded[name]
    }
    assert not off, (
        f"{off}: if the change is meant, record it with `python tests/planning/{pathlib.Path(__file__).name}`"
    )


if __name__ == "__main__":
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for name in sys.argv[1:] or PROGRAMS:
        known[name] = figures(PROGRAMS[name]())
        print(name, known[name], flush=True)
        RECORDED.write_text(json.dumps(known, indent=1) + "\n")
