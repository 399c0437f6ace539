"""What every benchmark reports about the process it ran in."""

import os

from benchmarks import measuring


def test_the_peak_is_at_least_what_was_held():
    before = measuring.peak_bytes()
    held = bytearray(os.urandom(1)) * 50_000_000
    assert measuring.peak_bytes() >= len(held) and measuring.peak_bytes() >= before > 0


def test_a_peak_is_told_in_megabytes():
    held = measuring.memory_held()["process_peak_mb"]
    assert 10 < held <= measuring.peak_bytes() / 1e6 + 1
