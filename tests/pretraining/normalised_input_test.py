"""Normalised input is transformers' for whole clips, exact under padding, the same in both modes, and exported."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_config
import training_runs
import transformers

import voc2vec_jax as v2v
from voc2vec_jax import audio, datasets
from voc2vec_jax.convert import reader as convert_reader
from voc2vec_jax.convert import writer
from voc2vec_jax.datasets import corpora, resident
from voc2vec_jax.models import wav2vec2
from voc2vec_jax.pretraining import batch_layout, batch_plan
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import reader as pretraining_reader
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step

EPS = convert_reader.TRANSFORMERS_EPS
LAYOUT = batch_layout.BatchLayout(
    groups=2, group_rows=2, crop_samples=16_000, bucket_samples=(8_000, 16_000), same_length_groups=1
)
EXTRACTOR = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)


def of_transformers(clip):
    (whole,) = EXTRACTOR(audio.from_int16(clip), sampling_rate=16_000)["input_values"]
    return whole


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("synthetic", data_dir=folder, clips=60, progress=False)
    return folder


@pytest.fixture(scope="module")
def corpus(data):
    return corpora.open_corpus(data, ("synthetic",))


@pytest.mark.parametrize("samples", [400, 16_001, 160_000])
@pytest.mark.parametrize("deviation, offset", [(5000.0, 0), (3.0, 0), (300.0, 200), (0.0, 0), (0.0, 7)])
def test_a_whole_clip_is_what_transformers_makes_of_it(samples, deviation, offset):
    clip = np.random.default_rng(samples).normal(offset, deviation, samples).astype(np.int16)
    mean, factor = audio.normalising([clip], EPS)
    given = audio.from_int16(clip)[None, None], np.array([[samples]]), mean[None], factor[None]
    found = training_step.normalised(*map(jnp.asarray, given))[0, 0]
    wanted = of_transformers(clip)
    # Both round to float32: what is left of an offset is a few times its last place, times the factor
    rounding = 2**-22 * (np.abs(wanted).max() + offset / 32768 * factor[0])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=rounding)


def rows_of(batch, k):
    """The normalised rows of group k of a batch, as the update sees them."""
    bucket = int(batch["bucket"][k])
    group = {name: jnp.asarray(x[k : k + 1]) for name, x in batch.items()}
    rows = training_step.as_rows(LAYOUT, None, group, bucket)
    clips = audio.from_int16(rows["audio"])
    return np.asarray(training_step.normalised(clips, rows["lengths"], rows["mean"], rows["factor"]))[0]


def test_a_crop_is_cut_from_the_whole_normalised_clip_and_padding_stays_zero(corpus):
    drawn = batch_plan.BatchPlan(LAYOUT, corpus.samples, corpus.set_index, np.arange(len(corpus)), seed=3)
    inside = 0
    for number, batch in enumerate(pretraining_reader.read_batches(corpus, drawn, 0, 9, eps=EPS)):
        where = batch_layout.host_rows(drawn, corpus.samples, number)
        for k in range(LAYOUT.groups):
            for row, found in enumerate(rows_of(batch, k)):
                index, start, length = where.index[k, row], where.start[k, row], where.lengths[k, row]
                assert not found[length:].any()
                if index != batch_layout.EMPTY:
                    whole = of_transformers(corpus.read([int(index)])[0])
                    np.testing.assert_allclose(found[:length], whole[start : start + length], rtol=0, atol=1e-5)
                    inside += start > 0 and length < len(whole)
    assert inside > 0


@pytest.mark.parametrize("batching", ["pad", "crop"])
def test_the_resident_corpus_has_the_statistics_of_the_stream_to_the_bit(corpus, batching):
    drawn = batch_plan.BatchPlan(LAYOUT, corpus.samples, corpus.set_index, np.arange(len(corpus)), seed=3)
    home = resident.Resident(corpus, np.arange(len(corpus)), eps=EPS)
    there = pretraining_data.resident_batches(home, corpus, drawn, 0, 9, batching=batching)
    read = pretraining_reader.read_batches(corpus, drawn, 0, 9, batching=batching, eps=EPS)
    for found, wanted in zip(there, read, strict=True):
        for name in ("mean", "factor"):
            assert found[name].dtype == wanted[name].dtype == np.float32 and wanted[name].any()
            assert np.array_equal(found[name], wanted[name])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model of the tiny recipe whose clips are normalised, in transformers' layout."""
    _, model = pretraining_recipe.build_model(tiny_config.get_config())
    params = jax.jit(wav2vec2.init_params, static_argnums=0)(model, jax.random.key(0))
    folder = tmp_path_factory.mktemp("source") / "model"
    writer.write_hf(folder, convert_reader.ModelWeights("wav2vec2", model, jax.device_get(params), normalize=True))
    return folder


@pytest.fixture(scope="module")
def continued(source, data, tmp_path_factory):
    """A run that continues from the source, which is gone when it is run again; and what both said."""
    run, cache = tmp_path_factory.mktemp("runs") / "continued", tmp_path_factory.mktemp("cache")
    moved = run.with_name("source")
    shutil.copytree(source, moved)
    given = cache, data, run, f"--config.init_from={moved}", "--config.total_steps=6"
    given += ("--config.bucket_samples=16_000",)
    first = training_runs.finish(training_runs.train(*given))
    shutil.rmtree(moved)
    return run, first, training_runs.finish(training_runs.train(*given)), (*given[:2], source)


@pytest.mark.slow
def test_a_run_is_normalised_as_its_source_and_keeps_to_it(continued):
    run, (status, _, said), (again, _, repeated), _ = continued
    assert status == 0, said
    assert f"normalize is clip, as {run.with_name('source')} was trained" in said
    assert json.loads((run / "config.json").read_text())["normalize"] == "clip"
    assert again == 0 and "is complete" in repeated, repeated


@pytest.mark.slow
def test_a_run_exports_how_its_clips_are_normalised(continued, tmp_path, capsys):
    model = v2v.from_pretrained(continued[0])
    assert "input normalised to zero mean and unit variance (eps 1e-07)" in capsys.readouterr().err
    model.save_pretrained(tmp_path / "hf")
    assert json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())["do_normalize"] is True
    model.save_pretrained(tmp_path / "own", format="jax")
    for folder in ("hf", "own"):
        again = convert_reader.read(tmp_path / folder)
        assert again.normalizes and again.eps == EPS


@pytest.mark.slow
def test_both_inputs_train_to_the_same_bits_and_another_normalisation_to_others(continued, tmp_path):
    run, *_, (cache, data, source) = continued
    wanted, given = training_runs.params_of(run, 6), (f"--config.init_from={source}", "--config.total_steps=6")
    for more, same in (("input=resident", True), ("normalize=none", False)):
        other = tmp_path / more
        status, _, said = training_runs.finish(training_runs.train(cache, data, other, *given, f"--config.{more}"))
        assert status == 0, said
        assert training_runs.identical(training_runs.params_of(other, 6), wanted) == same
        assert ("and this run is with none" in said) != same
