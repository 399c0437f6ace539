"""Cycles and collectives are counted once a run of them."""

import pytest

from voc2vec_jax.planning import collectives, counts

LOOP = """HloModule m
%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %s = f32[] add(%x, %y)
}
%body (p: (s32[], f32[1000])) -> (s32[], f32[1000]) {
  %p = (s32[], f32[1000]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %one = s32[] constant(1)
  %n = s32[] add(%i, %one), backend_config={"estimated_cycles":"10"}
  %x = f32[1000]{0} get-tuple-element(%p), index=1
  %b = bf16[1000]{0} convert(%x), backend_config={"estimated_cycles":"100"}
  %r = bf16[1000]{0} all-reduce(%b), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%add
  %y = f32[1000]{0} convert(%r), backend_config={"estimated_cycles":"9223372036854775807"}
  ROOT %t = (s32[], f32[1000]{0}) tuple(%n, %y)
}
%cond (q: (s32[], f32[1000])) -> pred[] {
  %q = (s32[], f32[1000]{0}) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %m = s32[]{:T(128)} constant(12)
  ROOT %lt = pred[]{:T(512)} compare(%j, %m), direction=LT
}
ENTRY %main (a: f32[1000]) -> f32[1000] {
  %a = f32[1000]{0} parameter(0)
  %z = s32[] constant(0)
  %s = (s32[], f32[1000]{0}) tuple(%z, %a)
  %w = (s32[], f32[1000]{0}) while(%s), condition=%cond, body=%body
  %o = f32[1000]{0} get-tuple-element(%w), index=1
  %g = (f32[1000]{0}, f32[4000]{0}) all-gather-start(%o), replica_groups=[1,4]<=[4], dimensions={0}
  %h = f32[4000]{0} all-gather-done(%g)
  %u = (f32[4000]{0}, s32[]) all-reduce-start(%h, %z), replica_groups=mesh['x'=2,'y'=2] {'x'}, to_apply=%add
  %v = (f32[4000]{0}, s32[]) all-reduce-done(%u)
  %k = f32[4000]{0} get-tuple-element(%v), index=0
  %c = f32[1000]{0} reduce-scatter(%k), replica_groups={{0,1,2,3}}, dimensions={0}, to_apply=%add
  %e = f32[1000]{0} custom-call(%c), custom_call_target="tpu_custom_call", COST
  ROOT %d = f32[1000]{0} collective-permute(%e), source_target_pairs={{0,2},{1,3},{2,0},{3,1}}
}
""".replace("COST", 'backend_config={"cost_estimate":{"flops":"700","transcendentals":"9","bytes_accessed":"80"}}')


def test_cycles_are_summed_over_the_turns_of_loops_and_unknown_ones_left_out():
    counted = counts.count(LOOP, (0, 0, 1, 1))
    assert counted.cycles == 12 * 110
    assert counted.kernels == 1 and counted.unknown_loops == 0
    assert (counted.kernel_flops, counted.kernel_bytes) == (700, 80)
    assert counted.cycles_of["b"] == 1200


def test_a_program_without_estimates_has_no_cycles():
    assert counts.count(LOOP.replace("estimated_cycles", "other"), (0,) * 4).cycles is None


def test_collectives_count_once_a_run_whether_in_the_background_or_not():
    found = counts.count(LOOP, (0, 0, 1, 1)).collectives
    shown = [(one.kind, one.dtypes, one.times, one.payload_bytes, one.group, one.near) for one in found]
    assert shown == [
        ("all-reduce", "bf16", 12, 2000, 2, True),  # 0 with 1, 2 with 3: within a host each
        ("all-gather", "f32", 1, 16_000, 4, False),
        ("all-reduce", "f32", 1, 16_004, 2, False),  # axis x: 0 with 2, 1 with 3
        ("reduce-scatter", "f32", 1, 16_000, 4, False),
        ("collective-permute", "f32", 1, 4000, 2, False),
    ]
    assert [one.sent_bytes for one in found] == [2000, 12_000, 16_004, 12_000, 4000]


@pytest.mark.parametrize(
    "attributes, groups",
    [
        ("replica_groups={{0,2},{1,3}}, to_apply=%a", [[0, 2], [1, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
        ("replica_groups={}, to_apply=%a", [[0, 1, 2, 3]]),
    ],
)
def test_groups_are_read_in_each_form_that_xla_writes(attributes, groups):
    assert collectives.groups_of(attributes, 4) == groups
