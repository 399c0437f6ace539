"""Features are those of the clips whoever asks, are kept, and are refused by name when a clip has none."""

import dataclasses
import importlib
import pathlib

import checkpoints
import numpy as np
import pytest

import voc2vec_jax as v2v
from voc2vec_jax import datasets, errors
from voc2vec_jax.finetuning import feature_sets, tasks


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    where = tmp_path_factory.mktemp("data")
    datasets.prepare("synthetic", data_dir=where, workers=1, progress=False, clips=14)
    return tasks.open_task("synthetic", data_dir=where, max_seconds=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("models") / "base"
    checkpoints.source(where, "Wav2Vec2Model")
    return where


@pytest.fixture
def no_model(monkeypatch):
    """Any computation of features fails: what is there must come from the cache."""

    def fail(*_, **__):
        raise AssertionError("computed again")

    def forbid():
        monkeypatch.setattr("voc2vec_jax.inference.pretrained.Model.embed", fail)
        monkeypatch.setattr(feature_sets, "_functionals", fail)

    return forbid


def test_a_layer_of_a_model_is_what_embed_gives_clip_by_clip(task, folder, tmp_path, monkeypatch, no_model):
    monkeypatch.setattr(feature_sets, "BLOCK_CLIPS", 4)
    model = v2v.from_pretrained(folder)
    alone = np.concatenate([model.embed([clip], layer="all") for clip in task.read(range(14))])
    found = feature_sets.model_features(task, str(folder), 1, cache_dir=tmp_path)
    np.testing.assert_allclose(found, alone[:, 1], atol=1e-5)
    last = feature_sets.features(task, str(folder), cache_dir=tmp_path)
    np.testing.assert_allclose(last, model.embed(task.read(range(14))), atol=1e-5)
    no_model()
    np.testing.assert_array_equal(feature_sets.features(task, str(folder), layer=1, cache_dir=tmp_path), found)
    every = feature_sets.model_features(task, str(folder), "all", cache_dir=tmp_path)  # layer 1 brought all layers
    np.testing.assert_allclose(every, alone, atol=1e-5)
    np.testing.assert_array_equal(feature_sets.features(task, str(folder), cache_dir=tmp_path), last)
    assert len(list(tmp_path.iterdir())) == 2  # blocks are gone


def test_another_model_other_clips_and_another_layer_are_computed_afresh(task, folder, tmp_path):
    other = tmp_path / "elsewhere" / "base"  # of the same name
    model = checkpoints.source(other, "Wav2Vec2Model")
    model.encoder.layers[1].final_layer_norm.bias.data += 1.0
    model.save_pretrained(other)
    cache = tmp_path / "cache"
    first = feature_sets.model_features(task, str(folder), cache_dir=cache)
    assert np.abs(feature_sets.model_features(task, str(other), cache_dir=cache) - first).min() > 0.5
    changed = dataclasses.replace(task, fingerprint="other", samples=task.samples // 2)
    assert not np.allclose(feature_sets.model_features(changed, str(folder), cache_dir=cache), first)
    assert len(list(cache.iterdir())) == 3


def test_what_a_kill_left_is_not_computed_again(task, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_sets, "BLOCK_CLIPS", 4)
    embed, calls = v2v.Model.embed, []

    def dies_at_the_third(self, items, **options):
        calls.append(len(items))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(self, items, **options)

    monkeypatch.setattr("voc2vec_jax.inference.pretrained.Model.embed", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        feature_sets.model_features(task, str(folder), cache_dir=tmp_path)
    found = feature_sets.model_features(task, str(folder), cache_dir=tmp_path)
    assert calls == [4, 4, 4, 4, 2]  # the first two blocks once, the third again, the rest
    monkeypatch.undo()
    np.testing.assert_allclose(
        found, feature_sets.model_features(task, str(folder), cache_dir=tmp_path / "b"), atol=1e-6
    )


def save(path: pathlib.Path, **arrays) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_vectors_of_a_file_find_their_clips(task, tmp_path):
    ids = np.array(["extra", *task.ids[::-1]])
    vectors = np.arange(15.0)[:, None] * np.ones(3)
    found = feature_sets.features(task, save(tmp_path / "f.npz", ids=ids, vectors=vectors), cache_dir=tmp_path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.arange(14.0, 0.0, -1)[:, None] * np.ones(3))


def with_nan(n):
    vectors = np.zeros((n, 3))
    vectors[2, 1] = np.nan
    return vectors


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (
            lambda ids: dict(ids=ids[2:], vectors=np.zeros((12, 3))),
            r"no vector for 2 of 14 clips \(seed0/00000_cough, ",
        ),
        (lambda ids: dict(ids=ids, vectors=with_nan(14)), r"NaN or infinite for 1 of 14 clips \(seed0/00002_groan\)"),
        (lambda ids: dict(ids=ids, vectors=np.full((14, 2), 1e39)), "NaN or infinite for 14 of 14 clips"),
        (lambda ids: dict(ids=np.r_[ids, ids[:1]], vectors=np.zeros((15, 3))), "has 1 ids more than once"),
        (lambda ids: dict(ids=np.arange(14), vectors=np.zeros((14, 3))), r"has ids int64\(14,\) and vectors"),
        (lambda ids: dict(ids=ids, vectors=np.zeros((13, 3))), r"vectors float64\(13, 3\): give text \[n\] and"),
        (lambda ids: dict(ids=ids), "holds no features .*save ids .text. and vectors in it"),
    ],
)
def test_files_that_do_not_fit_are_refused(task, tmp_path, arrays, says):
    with pytest.raises(errors.InputError, match=says), np.errstate(over="ignore"):
        feature_sets.read_features(save(tmp_path / "f.npz", **arrays(task.ids)), task)


def test_clips_too_short_for_the_features_are_named(task, folder, tmp_path):
    samples = task.samples.copy()
    samples[3] = 399
    short = dataclasses.replace(task, samples=samples)
    says = r"1 clip shorter than the 400 samples that .*base needs \(seed0/00003_laugh\)"
    with pytest.raises(errors.InputError, match=says):
        feature_sets.model_features(short, str(folder), cache_dir=tmp_path)
    samples[3] = 959
    with pytest.raises(errors.InputError, match=r"1 clip shorter than the 960 samples that openSMILE's eGeMAPSv02"):
        feature_sets.opensmile(short, "eGeMAPSv02", cache_dir=tmp_path)
    assert (feature_sets.least_samples("eGeMAPSv02"), feature_sets.least_samples(str(folder))) == (960, 400)


def test_features_that_are_nan_are_refused_by_name(task, folder, tmp_path, monkeypatch):
    def broken(self, items, **options):
        found = np.zeros((len(items), 4), np.float32)
        found[5] = np.nan
        return found

    monkeypatch.setattr("voc2vec_jax.inference.pretrained.Model.embed", broken)
    with pytest.raises(errors.InputError, match=r"NaN or infinite for 1 of 14 clips \(seed0/00005_sigh\)"):
        feature_sets.model_features(task, str(folder), cache_dir=tmp_path)


def test_layers_sets_and_damaged_caches_are_refused_in_a_sentence(task, folder, tmp_path):
    with pytest.raises(errors.InputError, match="layer 3 is not there: .* has layers 0 to 2"):
        feature_sets.model_features(task, str(folder), 3, cache_dir=tmp_path)
    with pytest.raises(errors.InputError, match="'IS09' is no set of features: choose one of ComParE_2016, eGeMAPSv02"):
        feature_sets.opensmile(task, "IS09", cache_dir=tmp_path)
    feature_sets.model_features(task, str(folder), cache_dir=tmp_path)
    next(tmp_path.iterdir()).write_bytes(b"junk")
    with pytest.raises(errors.InputError, match="is damaged .*: delete it, and it is computed again"):
        feature_sets.model_features(task, str(folder), cache_dir=tmp_path)


def test_without_opensmile_the_error_says_what_to_install(task, tmp_path, monkeypatch, capsys):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(errors.InputError, match=r"pip install -e '.*\[opensmile\]' .*--config.features=FILE.npz"):
        feature_sets.opensmile(task, cache_dir=tmp_path)
    assert "non-commercial research only" in capsys.readouterr().err


def test_opensmile_in_processes_gives_the_package_s_own_numbers(task, tmp_path, no_model, capsys):
    package = pytest.importorskip("opensmile")
    found = feature_sets.features(task, "eGeMAPSv02", cache_dir=tmp_path, workers=2)
    assert found.shape == (14, feature_sets.FEATURE_SETS["eGeMAPSv02"])
    smile = package.Smile(feature_set=package.FeatureSet.eGeMAPSv02, feature_level=package.FeatureLevel.Functionals)
    for row, clip in enumerate(task.read(range(14))):
        own = smile.process_signal(clip / np.float32(32768), 16_000).to_numpy()
        np.testing.assert_array_equal(found[row], own[0].astype(np.float32))
    no_model()
    np.testing.assert_array_equal(feature_sets.features(task, "eGeMAPSv02", cache_dir=tmp_path), found)
    assert capsys.readouterr().err.count("non-commercial research only") == 2


def test_a_part_that_another_run_takes_away_is_computed_again(task, tmp_path, monkeypatch):
    """Both protocols of a task need the same features, and may run side by side."""
    path = tmp_path / "features.npz"
    vectors = np.arange(2 * len(task), dtype=np.float32).reshape(-1, 2)
    part = path.with_suffix(f".0-{len(task) - 1}.part.npz")
    feature_sets._save(part, task.ids, vectors)
    load = np.load

    def taken(file, **options):
        pathlib.Path(file).unlink(missing_ok=True)
        return load(file, **options)

    monkeypatch.setattr(np, "load", taken)
    assert (feature_sets._cached(path, task, "x", lambda rows, advance: 2 * vectors[rows]) == 2 * vectors).all()
