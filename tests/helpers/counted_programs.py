"""A program whose counts are known, and a plan of it."""

import types

from voc2vec_jax.planning import chips, collectives, compiling, devices, report, roofline

TEXT = """HloModule m
ENTRY %main (a: f32[1000]) -> f32[1000] {
  %a = bf16[320000000]{0} parameter(0)
  ROOT %b = bf16[350000000]{0} fusion(%a), calls=%f, backend_config={"estimated_cycles":"120000000"}
}
%f (p: bf16[320000000]) -> bf16[350000000] {
  %p = bf16[320000000]{0} parameter(0)
  %z = bf16[] constant(0)
  ROOT %q = bf16[350000000]{0} pad(%p, %z), padding=0_30000000
}
"""


def all_reduce(group, near):
    """Three all-reduces of 450 MB over so many devices."""
    return collectives.Collective("all-reduce", "f32", 3, 450_000_000, group, near, "gradients")


def plan(**fields):
    """A plan for one TPU v5e: 1.34 GB of traffic, 120 M cycles, 3.1 GB needed."""
    device = types.SimpleNamespace(id=0, process_index=0, platform="tpu")
    return report.Plan(
        **{
            "machine": devices.Machine("v5e:1x1", chips.CHIPS["v5e"], (device,), {0: 0}),
            "title": "1 x TPU v5e",
            "shapes": ("batch      int16 [1, 1, 8, 160000]",),
            "parameters": 95_000_000,
            "parts": {"parameters": 400_000_000, "optimizer": 700_000_000, "batch": 2_560_000},
            "copied_bytes": 1_100_000_000,
            "free_bytes": 16_000_000_000,
            "compiled": compiling.Compiled(3.0, 1_200_000_000, 800_000_000, 2_000_000_000, TEXT),
            "work": roofline.Work(flops=8e12, audio_seconds=80.0, dtype="bfloat16", precision="highest"),
            "units": 1_000_000,
            "size": "remat or fsdp",
            **fields,
        }
    )
