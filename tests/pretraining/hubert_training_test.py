"""HuBERT in the one trainer: a whole run, kills, resumption from the run folder alone, export, continued training."""

import functools
import random
import shutil
import signal
import time

import jax
import numpy as np
import pytest
import torch
import training_runs
import transformers

from voc2vec_jax import datasets
from voc2vec_jax.convert import reader, sources, writer
from voc2vec_jax.datasets import records
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import initial_weights
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining.units import making as unit_making
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import checkpoint, configuration, rows

TINY = "tests/helpers/tiny_hubert_config.py"
start = functools.partial(training_runs.train, config=TINY, flags="")  # optimised, as users run it
STEPS, KILLS = training_runs.STEPS, 2


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepared = datasets.prepare("synthetic", data_dir=folder, clips=60, progress=False)
    make(folder, prepared, seed=0)
    return folder


def make(folder, prepared, seed):
    mfcc = unit_making.Mfcc()
    clustering = unit_making.make_clustering("tiny", folder, ["synthetic"], mfcc, clusters=8, share=0.5, seed=seed)
    return unit_making.make_units("tiny", prepared, clustering, mfcc)


@pytest.fixture(scope="module")
def whole(cache, data_dir, tmp_path_factory):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    status, _, err = training_runs.finish(start(cache, data_dir, workdir))
    assert status == 0, err
    return workdir


@pytest.mark.slow
def test_the_run_folder(whole):
    rows = training_runs.rows_of(whole)
    assert [row["step"] for row in rows if "split" not in row] == list(range(1, STEPS + 1))
    fields = "loss masked_loss feature_penalty accuracy commonest_unit unit_perplexity lr grad_norm"
    assert set(fields.split()) < set(rows[0])
    assert rows[0]["loss"] == pytest.approx(rows[0]["masked_loss"] + rows[0]["feature_penalty"])
    valid = [row for row in rows if row.get("split") == "validation"]
    assert valid[-1]["loss"] < valid[0]["loss"]
    assert unit_store.load_clustering(whole / "units" / "tiny").made_with["share"] == 0.5
    assert len(unit_store.load_units(whole / "units" / "tiny" / "synthetic").ends) == 60


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_bits(whole, cache, data_dir, tmp_path):
    draw = random.Random(5)
    workdir = tmp_path / "killed"
    metrics = workdir / "metrics.jsonl"
    for number in range(KILLS):
        process = start(cache, data_dir, workdir)
        wanted = 1 + (number + 1) * (STEPS - 4) // (KILLS + 1)
        while process.poll() is None and not (metrics.exists() and len(list(rows.read(metrics))) >= wanted):
            time.sleep(0.002)
        time.sleep(draw.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)
    # The last time from the resident corpus, and without the units beside the records: the run has its own.
    moved = tmp_path / "data"
    shutil.copytree(data_dir, moved)
    shutil.rmtree(unit_store.units_folder(moved, "synthetic", "tiny"))
    shutil.rmtree(moved / "units")
    status, _, err = training_runs.finish(start(cache, moved, workdir, "--config.input=resident"))
    assert status == 0, err
    assert "resuming" in err
    assert training_runs.identical(training_runs.params_of(workdir), training_runs.params_of(whole))
    assert training_runs.rows_of(workdir) == training_runs.rows_of(whole)
    assert checkpoint.steps(workdir / "best") == checkpoint.steps(whole / "best")


@pytest.mark.parametrize(
    "override, message",
    [
        ("units=none", "set synthetic has no units none (it has tiny): run `voc2vec units none"),
        ("model.classes=104", "add --config.model.classes=12"),
    ],
)
def test_units_that_do_not_fit_are_one_sentence(override, message, cache, data_dir, tmp_path):
    status, _, err = training_runs.finish(start(cache, data_dir, tmp_path / "run", f"--config.{override}"))
    assert status == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_it_exports_to_fairseq_and_transformers(whole, tmp_path):
    source = sources.read(whole)
    assert source.family == "hubert" and not source.missing
    writer.write_fairseq(tmp_path / "hubert.pt", source)
    back = reader.read(tmp_path / "hubert.pt")
    assert training_runs.identical(back.params, source.params)
    assert (back.config.classes, back.config.label_rate_hz, back.config.mask_share) == (12, 100.0, 0.8)
    dropped = writer.write_hf(tmp_path / "hf", source)
    assert set(dropped) == {"label_embeddings", "project_context/kernel", "project_context/bias"}
    model, said = transformers.HubertModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"]
    audio = np.random.default_rng(0).normal(0, 0.1, (1, 8000)).astype(np.float32)
    with torch.no_grad():
        wanted = model.eval()(torch.tensor(audio)).last_hidden_state.numpy()
    from voc2vec_jax.inference import pretrained

    found = pretrained.from_pretrained(whole)(audio, normalize=False).last_hidden_state
    assert np.abs(found - wanted).max() < 1e-4


@pytest.fixture(scope="module")
def other_units(data_dir, tmp_path_factory):
    """The same records with units of the same name from another clustering."""
    folder = tmp_path_factory.mktemp("other") / "data"
    shutil.copytree(data_dir, folder)
    shutil.rmtree(folder / "units")
    make(folder, records.open_set(folder, "synthetic"), seed=1)
    return folder


@pytest.mark.slow
def test_a_run_is_not_resumed_on_other_units(whole, other_units, cache, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "units")
    status, _, err = training_runs.finish(start(cache, other_units, tmp_path / "run"))
    assert status == 2
    assert "the units tiny are not those that" in err


def continued(source, folder, request):
    config = configuration.load(str(request.config.rootpath / TINY))
    config.data_dir, config.init_from = str(folder), str(source)
    family, model = pretraining_recipe.build_model(config)
    corpus = pretraining_data.open_corpus(config)
    targets = unit_store.targets_for_run(config, model, corpus, folder / "run", copy=False)
    return initial_weights.continued_params(config, family, model, targets)


@pytest.mark.slow
def test_heads_are_taken_over_with_the_same_units_only(whole, data_dir, other_units, request, capsys):
    source = sources.read(whole).params
    assert training_runs.identical(continued(whole, data_dir, request), source)
    capsys.readouterr()
    params = continued(whole, other_units, request)
    said = capsys.readouterr().err
    assert "or of other units, so freshly initialised: label_embeddings, project_context/bias" in said
    assert training_runs.identical(params["encoder"], source["encoder"])
    for name in ("label_embeddings", "project_context"):
        fresh, old = jax.tree.leaves(params[name]), jax.tree.leaves(source[name])
        assert not any(np.array_equal(a, b) for a, b in zip(fresh, old, strict=True))
