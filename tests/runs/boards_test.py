"""TensorBoard and Weights & Biases get the numbers of the rows; neither is needed unless it is asked for."""

import json
import sys
import types

import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.runs import boards, logs


def stand_in(monkeypatch, name, **content):
    """A package of that name with that content."""
    package = types.ModuleType(name)
    vars(package).update(content)
    monkeypatch.setitem(sys.modules, name, package)
    return package


@pytest.fixture
def calls():
    """What the stand-ins for the packages were told."""
    return []


@pytest.fixture
def tensorboard(monkeypatch, calls):
    class Writer:
        def __init__(self, folder, purge_step):
            calls.append((folder, purge_step))

        def add_scalar(self, *arguments):
            calls.append(arguments)

        def flush(self):
            calls.append("flush")

        def close(self):
            calls.append("close")

    stand_in(monkeypatch, "tensorboardX", SummaryWriter=Writer)


@pytest.fixture
def wandb(monkeypatch, calls):
    class Run:
        def define_metric(self, name, step_metric):
            calls.append(("metric", name, step_metric))

        def log(self, row):
            calls.append(row)

        def finish(self, exit_code):
            calls.append(("finish", exit_code))

    def init(**options):
        calls.append(options)
        return Run()

    monkeypatch.delenv("WANDB_NAME", raising=False)
    return stand_in(monkeypatch, "wandb", init=init, Settings=lambda console: console)


@pytest.mark.parametrize(("extra", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_board_is_asked_for_and_missing(tmp_path, monkeypatch, extra, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.InputError, match=rf"pip install -e '.*\[{extra}\]'"):
        logs.Metrics(tmp_path, **{extra: True})
    logs.Metrics(tmp_path).close()


def test_tensorboard_gets_the_finite_numbers_by_split(tmp_path, tensorboard, calls):
    with logs.Metrics(tmp_path, 4, tensorboard=True) as metrics:
        metrics.write(5, {"loss": np.float32(0.5), "lr": float("nan"), "bad": True})
        metrics.write(5, {"loss": 2.0, "split": "validation"})
    scalars = [("train/loss", 0.5, 5), ("validation/loss", 2.0, 5)]
    assert calls == [(str(tmp_path / "tensorboard"), 5), *scalars, "flush", "close"]


def test_weights_and_biases_gets_them_over_the_runs_own_steps(tmp_path, wandb, calls):
    (tmp_path / "config.json").write_text(json.dumps({"peak_lr": 1e-3}))
    with logs.Metrics(tmp_path, 4, wandb=True) as metrics:
        metrics.write(5, {"loss": np.float32(0.5), "lr": float("nan"), "bad": True})
        metrics.write(5, {"loss": 2.0, "split": "validation"})
    options, *others = calls
    assert options["config"] == {"peak_lr": 1e-3} and options["dir"] == str(tmp_path)
    assert options["name"] == tmp_path.name and options["resume"] == "allow"
    rows = [{"step": 5, "train/loss": 0.5}, {"step": 5, "validation/loss": 2.0}]
    assert others == [("metric", "*", "step"), *rows, ("finish", 0)]


def test_a_rerun_continues_the_same_run_and_leaves_its_name(tmp_path, wandb, calls):
    for _ in range(2):
        logs.Metrics(tmp_path, wandb=True).close()
    first, second = (call for call in calls if isinstance(call, dict))
    assert first["id"] == second["id"] == (tmp_path / "wandb_id.txt").read_text().strip()
    assert (first["name"], second["name"]) == (tmp_path.name, None)
    (tmp_path / "other").mkdir()
    logs.Metrics(tmp_path / "other", wandb=True).close()
    assert calls[-3]["id"] != first["id"]


def test_a_run_that_fails_is_shown_as_failed(tmp_path, wandb, calls):
    with pytest.raises(KeyError), logs.Metrics(tmp_path, wandb=True):
        raise KeyError("a fault")
    assert calls[-1] == ("finish", 1)


def test_weights_and_biases_that_does_not_start_is_one_sentence(tmp_path, wandb, monkeypatch):
    def init(**options):
        raise ValueError("No API key configured.\nmore lines")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(errors.RunError, match=r"did not start \(No API key configured\.\): log in") as caught:
        boards.WeightsAndBiases(tmp_path, 0)
    assert "\n" not in str(caught.value)
