"""The text of a program is read as XLA means it: types with their tiles, instructions, loops and their turns."""

import jax
import jax.numpy as jnp
import pytest

from voc2vec_jax.planning import hlo, loops

PROGRAM = """
HloModule jit_f, is_scheduled=true

%body (p: (s32[], f32[4,8], s32[])) -> (s32[], f32[4,8], s32[]) {
  %p = (s32[], f32[4,8]{1,0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%p), index=1
  %n = s32[] get-tuple-element(%p), index=2
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %y = f32[4,8]{1,0} sine(%x), metadata={op_name="jit(f)/sin"}
  ROOT %t = (s32[], f32[4,8]{1,0}, /*index=2*/s32[]) tuple(%next, %y, %n)
}

%condition (q: (s32[], f32[4,8], s32[])) -> pred[] {
  %q = (s32[], f32[4,8]{1,0}, s32[]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %m = s32[] get-tuple-element(%q), index=2
  ROOT %lt = pred[] compare(%j, %m), direction=LT
}

ENTRY %main (a: f32[4,8]) -> f32[4,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %first = s32[] constant(FIRST)
  %seven = s32[]{:T(128)} constant(7)
  %bound = s32[] copy(%seven)
  %start = (s32[], f32[4,8]{1,0}, s32[]) tuple(%first, %a, %bound)
  %loop = (s32[], f32[4,8]{1,0}, s32[]) while(%start), condition=%condition, body=%body
  ROOT %result = f32[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    "text, size",
    [
        ("f32[4,8]{1,0}", 4 * 8 * 4),
        ("bf16[3]", 6),
        ("pred[]", 1),
        ("s4[6]{0}", 3),
        ("f8e4m3fn[5]", 5),
        ("token[]", 0),
        ("(f32[2]{0}, (s32[], bf16[4]{0}))", 8 + 4 + 8),
        ("bf16[8,499,768]{2,1,0:T(8,128)(2,1)}", 8 * 504 * 768 * 2),  # 499 rows are stored as 504
        ("f32[499,8]{0,1:T(8,128)}", 8 * 512 * 4),  # the axis of 499 is the fastest: padded to 128s
        ("f32[768]{0:T(1024)}", 1024 * 4),
        ("s32[]{:T(128)}", 128 * 4),
        ("f32[16,128]{1,0:T(8,128)S(1)}", 0),  # on the chip
        ("f32[16,128]{1,0:S(1)}", 16 * 128 * 4),  # no tiles: not a TPU's
    ],
)
def test_the_bytes_of_a_type(text, size):
    assert hlo.size(hlo.parse_type(text)) == size


def test_elements_without_padding_and_on_the_chip_have_their_plain_size():
    assert hlo.parse_type("bf16[3,499]{1,0:T(8,128)(2,1)S(1)}").plain_bytes == 3 * 499 * 2


@pytest.mark.parametrize("first", [0, 3])
def test_a_loop_whose_bound_is_carried_turns_as_often_as_its_constants_say(first):
    program = hlo.parse(PROGRAM.replace("FIRST", str(first)))
    steps = {step.instruction.name: step for step in loops.walk(program)}
    assert steps["y"].times == 7 - first and steps["y"].counted
    assert steps["bound"].times == 1
    assert steps["y"].instruction.label == "jit(f)/sin"
    assert steps["t"].instruction.operands == ("next", "y", "n")
    assert hlo.size(steps["t"].instruction.type) == 4 + 4 * 8 * 4 + 4


def test_a_loop_that_ends_when_its_data_say_counts_once_and_is_marked():
    program = hlo.parse(PROGRAM.replace("FIRST", "0").replace("s32[] copy(%seven)", "s32[] popcnt(%seven)"))
    step = next(step for step in loops.walk(program) if step.instruction.name == "y")
    assert (step.times, step.counted) == (1, False)


def test_loops_of_a_compiled_program_multiply():
    def nested(x):
        return jax.lax.fori_loop(0, 3, lambda _, a: jax.lax.fori_loop(0, 5, lambda _, b: jnp.sin(b) + 1, a), x)

    text = jax.jit(nested).lower(jnp.ones(1000)).compile().as_text()
    assert {1, 3, 15} == {step.times for step in loops.walk(hlo.parse(text))}


def test_a_conditional_counts_as_the_branch_that_moves_most():
    def many(x):
        return jnp.full(10_000, jnp.sort(jnp.cumsum(jnp.sort(x[:8])))[3])

    for branches in ((many, jnp.sin), (jnp.sin, many)):
        text = jax.jit(lambda i, x, b=branches: jax.lax.switch(i, b, x)).lower(0, jnp.ones(10_000)).compile().as_text()
        sines = [step.times for step in loops.walk(hlo.parse(text)) if "sin" in step.instruction.label]
        assert sines == [1]


def test_a_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="no entry"):
        hlo.parse("HloModule empty\n")
