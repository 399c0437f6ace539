"""Machines have names; a name that means nothing is refused in one sentence."""

import pytest

from voc2vec_jax import errors
from voc2vec_jax.planning import chips, devices


@pytest.mark.parametrize(
    "name, parsed",
    [
        ("v5e:2x4", ("v5e", (2, 4), 1)),
        ("v5e", ("v5e", (1, 1), 1)),
        ("v5p:4x4x4", ("v5p", (4, 4, 4), 1)),
        ("v6e:4x4*3", ("v6e", (4, 4), 3)),
        ("h100", ("h100", (1,), 1)),
        ("h100:8", ("h100", (8,), 1)),
        ("a6000:2x8", ("a6000", (2, 8), 1)),
    ],
)
def test_a_name_says_chip_grid_and_slices(name, parsed):
    assert devices.parse(name) == parsed


@pytest.mark.parametrize(
    "name, words",
    [
        ("v5x:2x2", "none of v2, v3.*did you mean v5"),
        ("h1000:8", "did you mean h100"),
        ("gizmo", "none of.*such as v5e:1x1"),
        ("v5e:2x2x2", "form v5e:AxB chips"),
        ("v5p:2x2", "form v5p:AxBxC chips"),
        ("h100:0", "form h100:GPUS or HOSTSxGPUS"),
        ("h100:8*2", "form h100:GPUS"),
        ("h100:axb", "form h100:GPUS"),
        ("v5e:2x4*0", "form v5e:AxB"),
    ],
)
def test_what_is_no_machine_is_refused_with_what_would_be(name, words):
    with pytest.raises(errors.InputError, match=words):
        devices.parse(name)


@pytest.mark.parametrize("name, extra", [("v5e:2x4", "plan-tpu"), ("h100", "plan-cuda")])
def test_without_its_compiler_a_machine_is_refused_with_the_extra_to_install(name, extra, monkeypatch):
    monkeypatch.setattr(devices, "_installed", lambda module: False)
    with pytest.raises(errors.InputError, match=rf"pip install -e '.*\[{extra}\]'"):
        devices.machine(name)


def test_the_description_of_a_gpu_states_its_figures():
    text = chips.gpu_target(chips.CHIPS["a6000"])
    for line in (
        "core_count: 84",
        "memory_bandwidth: 768000000000",
        "major: 8 minor: 6 }",
        "shared_memory_per_core: 102400",
    ):
        assert line in text, text
    assert "ACCELERATED" not in text
    assert "major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }" in chips.gpu_target(chips.CHIPS["h100"])


def test_figures_are_of_a_device_and_of_a_precision():
    v5e, v3, h100 = (chips.CHIPS[name] for name in ("v5e", "v3", "h100"))
    assert v5e.flops("bfloat16", "highest") == 197e12
    assert v5e.flops("float32", "highest") == pytest.approx(197e12 / 6)
    assert v5e.flops("float32", "default") == 197e12
    assert v3.flops("bfloat16", "default") == 123e12 / 2  # two devices a chip
    assert h100.flops("float32", "default") > 7 * h100.flops("float32", "highest")  # TF32
    for chip in chips.CHIPS.values():
        assert 0 < chip.usable_bytes < chip.memory_bytes
        assert (chip.gpu is not None) == (chip.platform == "cuda")
