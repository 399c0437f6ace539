"""Bytes read and written, against programs whose traffic is known from their arrays."""

import jax
import jax.numpy as jnp
import pytest

from voc2vec_jax.planning import counts

KB = 1000 * 4  # bytes of f32[1000]


def moved(lines, types="a: f32[10,1000], b: f32[1000], i: s32[]", before=""):
    """The traffic of an entry with these lines behind the parameters a, b and i."""
    text = f"""HloModule m
{before}
ENTRY %main ({types}) -> f32[1] {{
  %a = f32[10,1000]{{1,0}} parameter(0)
  %b = f32[1000]{{0}} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
{lines}
}}
"""
    return counts.count(text).traffic_bytes


def fusion(body, result, operands):
    """A fusion of (a, b, i) whose computation is `body`."""
    called = f"""%fused (p: f32[10,1000], q: f32[1000], k: s32[]) -> {result} {{
  %p = f32[10,1000]{{1,0}} parameter(0)
  %q = f32[1000]{{0}} parameter(1)
  %k = s32[] parameter(2)
  %z = s32[] constant(0)
{body}
}}
"""
    return moved(f"  ROOT %f = {result} fusion({operands}), kind=kLoop, calls=%fused", before=called)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("ROOT %x = f32[1000]{0} add(%b, %b)", 2 * KB),  # an operand is read once
        ("ROOT %x = f32[1000]{0} negate(%b)", 2 * KB),
        ("ROOT %x = f32[1,1000]{1,0} dynamic-slice(%a, %i, %zero), dynamic_slice_sizes={1,1000}", 2 * KB),
        ("ROOT %x = f32[2,1000]{1,0} slice(%a), slice={[0:2], [0:1000]}", 4 * KB),
        ("ROOT %x = f32[10000]{0} bitcast(%a)", 0),
        ("ROOT %x = (f32[10,1000]{1,0}, f32[1000]{0}) tuple(%a, %b)", 0),
        ("ROOT %x = f32[8]{0} custom-call(), custom_call_target=\"AllocateBuffer\"", 0),
        ("ROOT %x = f32[10,1000]{1,0} custom-call(%a), custom_call_target=\"tpu_custom_call\"", 20 * KB),
    ],
)  # fmt: skip
def test_an_instruction_reads_its_operands_and_writes_its_result(line, expected):
    assert moved("  " + line) == expected


def test_an_update_in_place_moves_the_update_alone():
    reshaped = "  %u = f32[1,1000]{1,0} bitcast(%b)\n"
    assert moved(reshaped + "  ROOT %x = f32[10,1000]{1,0} dynamic-update-slice(%a, %u, %i, %zero)") == 2 * KB


@pytest.mark.parametrize(
    "body, result, expected",
    [
        # Reads a and b whole, but not the unused i, and writes [10, 1000].
        (
            "  %w = f32[10,1000]{1,0} broadcast(%q), dimensions={1}\n  ROOT %r = f32[10,1000]{1,0} add(%p, %w)",
            "f32[10,1000]{1,0}",
            10 * KB + KB + 10 * KB,
        ),
        # Takes one row of a: reads a row, b and i.
        (
            "  %s = f32[1,1000]{1,0} dynamic-slice(%p, %k, %z), dynamic_slice_sizes={1,1000}\n"
            "  %t = f32[1000]{0} bitcast(%s)\n  ROOT %r = f32[1000]{0} add(%t, %q)",
            "f32[1000]{0}",
            KB + KB + 4 + KB,
        ),
        # A view of a is sliced too: not more than the slices.
        (
            "  %v = f32[5,2000]{1,0} bitcast(%p)\n  %s = f32[1,1000]{1,0} slice(%v), slice={[0:1], [0:1000]}\n"
            "  %t = f32[1000]{0} bitcast(%s)\n  ROOT %r = f32[1000]{0} add(%t, %q)",
            "f32[1000]{0}",
            KB + KB + KB,
        ),
        # Stacking: writes a row into a, which stays where it is.
        (
            "  %n = f32[1000]{0} negate(%q)\n  %u = f32[1,1000]{1,0} bitcast(%n)\n"
            "  ROOT %r = f32[10,1000]{1,0} dynamic-update-slice(%p, %u, %k, %z)",
            "f32[10,1000]{1,0}",
            KB + KB + 4,
        ),
        # Adds to a row of a in place: reads that row too.
        (
            "  %s = f32[1,1000]{1,0} dynamic-slice(%p, %k, %z), dynamic_slice_sizes={1,1000}\n"
            "  %v = f32[1,1000]{1,0} bitcast(%q)\n  %n = f32[1,1000]{1,0} add(%s, %v)\n"
            "  ROOT %r = f32[10,1000]{1,0} dynamic-update-slice(%p, %n, %k, %z)",
            "f32[10,1000]{1,0}",
            KB + KB + 4 + KB,
        ),
        # Two results, one of them in place.
        (
            "  %n = f32[1000]{0} negate(%q)\n  %u = f32[1,1000]{1,0} bitcast(%n)\n"
            "  %d = f32[10,1000]{1,0} dynamic-update-slice(%p, %u, %k, %z)\n"
            "  ROOT %r = (f32[10,1000]{1,0}, f32[1000]{0}) tuple(%d, %n)",
            "(f32[10,1000]{1,0}, f32[1000]{0})",
            KB + KB + 4 + KB,
        ),
    ],
)
def test_a_fusion_moves_what_goes_in_and_out_of_it(body, result, expected):
    assert fusion(body, result, "%a, %b, %i") == expected


def test_a_copy_in_the_background_counts_once_and_the_chip_s_own_memory_never():
    lines = (
        "  %s = (f32[16,128]{1,0:T(8,128)S(1)}, f32[16,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%h)\n"
        "  ROOT %d = f32[16,128]{1,0:T(8,128)S(1)} copy-done(%s)"
    )
    assert moved("  %h = f32[16,128]{1,0:T(8,128)} bitcast(%a)\n" + lines) == 16 * 128 * 4


def test_what_a_loop_does_counts_for_every_turn():
    text = """HloModule m
%body (p: (s32[], f32[1000])) -> (s32[], f32[1000]) {
  %p = (s32[], f32[1000]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[1000]{0} get-tuple-element(%p), index=1
  %y = f32[1000]{0} sine(%x)
  ROOT %t = (s32[], f32[1000]{0}) tuple(%i, %y)
}
%cond (q: (s32[], f32[1000])) -> pred[] {
  %q = (s32[], f32[1000]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}
ENTRY %main (a: f32[1000]) -> f32[1000] {
  %a = f32[1000]{0} parameter(0)
  %z = s32[] constant(0)
  %s = (s32[], f32[1000]{0}) tuple(%z, %a)
  %w = (s32[], f32[1000]{0}) while(%s), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"6"}}
  ROOT %r = f32[1000]{0} get-tuple-element(%w), index=1
}
"""
    assert counts.count(text).traffic_bytes == 6 * 2 * KB


def compiled(f, *arrays, **options):
    return counts.count(jax.jit(f, **options).lower(*arrays).compile().as_text()).traffic_bytes


def test_compiled_programs_move_what_their_arrays_hold():
    assert compiled(lambda x: x + 1, jnp.ones(1000)) == 2 * KB
    square = jnp.ones((256, 256))
    assert compiled(lambda a: a @ a.T, square) == 2 * square.nbytes
    update = jax.lax.dynamic_update_slice
    assert compiled(lambda a, b, i: update(a, b, (i,)), jnp.ones(10_000), jnp.ones(10), 3, donate_argnums=0) == 84


def test_a_scan_reads_a_slice_a_turn_and_writes_a_slice_a_turn():
    x, rows = jnp.ones(1000), jnp.ones((10, 1000))
    summed = compiled(lambda xs: jax.lax.scan(lambda c, x: (c + x, None), jnp.zeros(1000), xs)[0], rows)
    # Zeros are written once; a turn reads the sum and a row, and writes the sum. Counters are a few bytes.
    assert 31 * KB <= summed <= 32 * KB
    stacked = compiled(lambda x: jax.lax.scan(lambda c, _: (c * 2 + 1, c), x, None, length=10), x)
    # Zeros [10, 1000]; a turn reads and writes the carry, and reads and writes a row: whole arrays would be 240.
    assert 50 * KB <= stacked <= 75 * KB
