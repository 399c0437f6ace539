"""A plan is compared with the machine's figures, and told in lines or as JSON."""

import dataclasses
import json

import counted_programs
import pytest

from voc2vec_jax.planning import chips, counts, report, roofline

WORK = roofline.Work(flops=8e12, audio_seconds=80.0, dtype="bfloat16", precision="highest")


def counted(**fields):
    none = counts.Counts(0, None, 0, (), 0, {}, {})
    return dataclasses.replace(none, **fields)


def test_each_part_is_its_amount_over_the_rate_of_a_device():
    v5e, h100 = chips.CHIPS["v5e"], chips.CHIPS["h100"]
    parts = roofline.seconds(v5e, 4, WORK, counted(traffic_bytes=819_000_000, cycles=3_000_000))
    assert parts["arithmetic"] == pytest.approx(2e12 / 197e12)
    assert parts["memory"] == pytest.approx(1e-3)
    assert parts["cycles"] == pytest.approx(2e-3)
    assert parts["collectives"] == 0
    assert roofline.binding(parts) == "arithmetic"
    assert "cycles" not in roofline.seconds(h100, 4, WORK, counted(traffic_bytes=1))


def test_kernels_without_cycles_take_what_their_stated_costs_take():
    v5e = chips.CHIPS["v5e"]
    slow = counted(cycles=1_500_000, kernels=2, kernel_flops=197_000_000_000, kernel_bytes=819_000)
    assert roofline.seconds(v5e, 1, WORK, slow)["cycles"] == pytest.approx(1e-3 + 1e-3)
    wide = counted(cycles=1_500_000, kernels=2, kernel_flops=197, kernel_bytes=2 * 819_000_000)
    assert roofline.seconds(v5e, 1, WORK, wide)["cycles"] == pytest.approx(1e-3 + 2e-3)


def test_what_leaves_a_host_goes_at_the_network_s_rate():
    h100 = chips.CHIPS["h100"]
    near = roofline.seconds(h100, 16, WORK, counted(collectives=(counted_programs.all_reduce(8, near=True),)))
    far = roofline.seconds(h100, 16, WORK, counted(collectives=(counted_programs.all_reduce(8, near=False),)))
    # A ring of 8 sends 7/8 of the array twice: 3 times 450 MB here.
    assert near["collectives"] == pytest.approx(3 * 450e6 * 2 * 7 / 8 / 450e9)
    assert far["collectives"] == pytest.approx(3 * 450e6 * 2 * 7 / 8 / 50e9)


def test_two_devices_of_a_chip_share_its_rates():
    v3 = chips.CHIPS["v3"]
    parts = roofline.seconds(v3, 2, WORK, counted(traffic_bytes=450_000_000))
    assert parts["memory"] == pytest.approx(1e-3)
    assert parts["arithmetic"] == pytest.approx(4e12 / 61.5e12)


def test_a_report_names_what_binds_and_calls_its_figures_estimates():
    text = "\n".join(report.lines(counted_programs.plan(), report.Request()))
    for words in (
        "Estimates from the compiled program",
        "1 x TPU v5e",
        "Nothing was measured",
        "arithmetic 40.6 ms at 197 TFLOP/s, bfloat16 products",
        "memory     1.64 ms: 1.34 GB at 819 GB/s",
        "cycles     80 ms: 120.0 M at 1.5 GHz",
        "binds      cycles: a step takes 80 ms at least",
        "at most    1,000 audio-seconds per second",
        "the run    22.2 hours at least, 1,000,000 steps",
        "nothing was written",
    ):
        assert words in text, text
    assert "does not fit" not in text


@pytest.mark.parametrize(
    "unit, units, words", [("batch", 1, "1 batch"), ("batch", 3, "3 batches"), ("epoch", 50, "50 epochs")]
)
def test_a_run_counts_its_units(unit, units, words):
    text = list(report.lines(counted_programs.plan(unit=unit, units=units), report.Request()))
    assert any(line.startswith("the run") and line.endswith(f"at least, {words}") for line in text), text


def test_what_does_not_fit_is_said_first():
    large = counted_programs.plan(free_bytes=2_000_000_000, fitting="the largest found to fit: groups_per_device=1")
    first = next(report.lines(large, report.Request()))
    assert first.startswith("does not fit: a device needs 3.10 GB and has 2.00 GB; the largest found to fit")
    alone = next(report.lines(dataclasses.replace(large, fitting=""), report.Request()))
    assert "nothing smaller was found to fit: change remat or fsdp" in alone


def test_json_is_one_line_of_the_same_figures(capsys):
    report.show(counted_programs.plan(), report.Request(json=True))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    found = json.loads(printed)
    assert found["binds"] == "cycles" and found["fits"] and found["device"] == "v5e:1x1"
    assert found["audio_seconds_per_second_at_most"] == pytest.approx(1000)
    assert found["days_at_least"] == pytest.approx(0.926, abs=1e-3)
    assert found["basis"] == "estimated from the compiled program, not measured"


def test_the_program_is_written_where_the_user_says(tmp_path, capsys):
    path = tmp_path / "step.hlo"
    report.show(counted_programs.plan(), report.Request(hlo=str(path)))
    assert path.read_text() == counted_programs.TEXT
    assert f"the program is in {path}" in capsys.readouterr().out
