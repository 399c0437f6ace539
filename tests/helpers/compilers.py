"""Machines for tests that compile for them; skipped with the reason where their compiler is not installed."""

import pytest

from voc2vec_jax import errors
from voc2vec_jax.planning import devices


def machine(name):
    """The machine of a name; skips the test without its compiler."""
    try:
        devices.need_plugin(name, devices.chips.CHIPS[devices.parse(name)[0]].platform)
    except errors.InputError as error:
        pytest.skip(f"not compiled: {error}")
    return devices.machine(name)
