"""conv_spec: fairseq's arithmetic on lists is understood, and nothing else is."""

import pytest

from voc2vec_jax import errors
from voc2vec_jax.convert import conv_spec


def test_conv_layers_are_parsed():
    base = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] * 2"
    assert conv_spec.parse(base) == [(512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2]
    assert conv_spec.parse("([(1, 2, 3), [4, 5, 6]] + [(7, 8, 9)]) * 2") == [(1, 2, 3), (4, 5, 6), (7, 8, 9)] * 2
    layers = [(3, 2, 1), (30, 20, 10)]
    assert conv_spec.parse(conv_spec.text(*zip(*layers))) == layers


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[] * 3",
        "1",
        "[(512, 10)]",
        "[(512, 10, 5.0)]",
        "[(512, -10, 5)]",
        "[(512, True, 5)]",
        "[(512, 10, 5)] * 0",
        "[(512, 10, 5)] * 65",
        "[(512, 10, 5)] * 9 * 9",
        "[(512, 10, 10 ** 9)]",
        "[(99999999, 10, 5)]",
        "[(512, 10, 5)] - [(512, 10, 5)]",
        "[(512, 10, 5) for _ in range(9)]",
        "list([(512, 10, 5)])",
        "__import__('os').system('true')",
        "[(512, 10, (lambda: 5)())]",
        "[(512, 10, 5)",
        "(" * 500 + ")" * 500,
        "[(1, 1, 1)] + " * 1000 + "[(1, 1, 1)]",
        "\0",
    ],
)
def test_conv_layers_of_any_other_kind_are_refused(text):
    with pytest.raises(errors.InputError, match="is not a sum of lists"):
        conv_spec.parse(text)


def test_a_text_has_at_most_2000_characters_and_64_layers():
    one = "[(1, 2, 3)]"
    assert conv_spec.parse(one + " " * (2000 - len(one))) == [(1, 2, 3)]
    assert len(conv_spec.parse(f"{one} * 64")) == len(conv_spec.parse(f"{one} * 60 + {one} * 4")) == 64
    assert conv_spec.parse("[(65536, 1, 1)]") == [(65536, 1, 1)]
    for text in (one + " " * (2001 - len(one)), f"{one} * 60 + {one} * 5", "[(65537, 1, 1)]", "[(1, 0, 1)]"):
        with pytest.raises(errors.InputError, match="is not a sum of lists"):
            conv_spec.parse(text)
