"""A moving average of the parameters: trained beside them, validated in their place, saved, resumed and exported."""

import signal
import time

import jax
import numpy as np
import pytest
import training_runs

from voc2vec_jax import datasets
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import sources
from voc2vec_jax.runs import checkpoint

AVERAGING = "--config.ema_decay=0.75"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function that trains to the end in a new folder, perhaps stopped and resumed on the way."""
    folder = tmp_path_factory.mktemp("runs")
    datasets.prepare("synthetic", data_dir=folder / "data", clips=60, progress=False)

    def run(name, *given, stop_at=None):
        arguments = folder / "cache", folder / "data", folder / name, "--config.bucket_samples=16_000", *given
        if stop_at is not None:
            process = training_runs.train(*arguments)
            while training_runs.last_step(folder / name) < stop_at:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGTERM)
            status, _, said = training_runs.finish(process)
            assert status == 75, said
        status, _, said = training_runs.finish(training_runs.train(*arguments))
        assert status == 0, said
        return folder / name

    return run


@pytest.fixture(scope="module")
def averaged(runs):
    return runs("averaged", AVERAGING)


def rows_of(workdir, split):
    return [row for row in training_runs.rows_of(workdir) if row.get("split") == split]


@pytest.mark.slow
def test_it_changes_nothing_of_the_training_but_what_is_validated(averaged, runs):
    plain = runs("plain")
    for row, wanted in zip(rows_of(averaged, None), rows_of(plain, None), strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-3)  # two programs, which round differently
    found, wanted = training_runs.params_of(averaged), training_runs.params_of(plain)
    assert found.keys() - wanted.keys() == {"ema"}
    pairs = zip(rows_of(averaged, "validation"), rows_of(plain, "validation"), strict=True)
    assert all(abs(a["loss"] / b["loss"] - 1) > 1e-2 for a, b in pairs)


@pytest.mark.slow
def test_it_is_resumed_to_the_bit(averaged, runs):
    resumed = runs("resumed", AVERAGING, stop_at=8)
    assert training_runs.identical(training_runs.params_of(resumed), training_runs.params_of(averaged))
    assert training_runs.rows_of(resumed) == training_runs.rows_of(averaged)


@pytest.mark.slow
def test_it_is_what_a_run_gives(averaged):
    (best,) = checkpoint.steps(averaged / "best")
    state, _ = checkpoint.read(averaged / "best" / str(best))
    gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), state["ema"], state["params"])
    assert max(jax.tree.leaves(gap)) > 1e-4
    found, wanted = (convert_names.flatten(tree) for tree in (sources.read(averaged).params, state["ema"]))
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.slow
def test_a_run_begins_it_and_ends_it_on_purpose(runs):
    run = runs("changed")
    for steps, decay, held in ((27, 0.75, True), (30, 0.0, False)):
        fields = f"--config.total_steps={steps}", f"--config.ema_decay={decay}"
        runs("changed", "--resume_with=ema_decay,total_steps", *fields)
        state = training_runs.params_of(run, steps)
        assert ("ema" in state) == held
        if held:
            before = training_runs.params_of(run, 24)
            gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), state["ema"], before["params"])
            assert 0 < max(jax.tree.leaves(gap)) < 0.01  # three updates from where it began
