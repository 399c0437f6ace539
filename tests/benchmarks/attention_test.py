"""The benchmark of attention measures every implementation that can be had here and says why others cannot."""

import json

import pytest
from benchmarks import attention as attention_benchmark
from benchmarks import measuring

from voc2vec_jax import errors


@pytest.mark.slow
def test_every_implementation_is_measured_or_says_why_not(monkeypatch):
    monkeypatch.setattr(measuring, "matmul_rate", lambda dtype: 1e9)
    settings = attention_benchmark.AttentionBenchmark(frames=(8, 12), heads=2, total=24, dtype="bfloat16", passes=1)
    figures = list(attention_benchmark.figures(settings))
    json.dumps(figures, allow_nan=False)
    assert figures[0]["figure"] == "attention matmul rate"
    for frames, rows in ((8, 3), (12, 2)):
        found = {figure["figure"]: figure for figure in figures if figure.get("frames") == frames}
        assert all(figure["rows"] == rows for figure in found.values())
        for name in ("attention plain", "attention xla"):
            assert 0 < found[name]["error"] < 0.02 and found[name]["forward_seconds"] > 0
            forward = 4 * rows * 2 * frames**2 * 64 / found[name]["forward_seconds"] / 1e9
            assert found[name]["share_of_matmul_rate"] == pytest.approx(forward, rel=0.02, abs=2e-3)
        assert "'cudnn' needs an NVIDIA GPU with cuDNN" in found["attention cudnn"]["not_measured"]


def test_with_dropout_only_ours_is_left(monkeypatch):
    monkeypatch.setattr(measuring, "matmul_rate", lambda dtype: 1e9)
    settings = attention_benchmark.AttentionBenchmark(frames=(8,), heads=2, total=24, dropout=0.5, passes=1)
    left = [figure for figure in attention_benchmark.figures(settings) if "not_measured" in figure]
    assert [figure["figure"] for figure in left] == ["attention xla", "attention cudnn"]


@pytest.mark.parametrize(
    "fault, message",
    [
        ({"frames": (50, 0)}, "--frames=50,0"),
        ({"heads": 0}, "--heads=0"),
        ({"dropout": 1.0}, "--dropout=1: give 0 or more and under 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(fault, message):
    with pytest.raises(errors.InputError, match=message):
        next(attention_benchmark.figures(attention_benchmark.AttentionBenchmark(**fault)))
