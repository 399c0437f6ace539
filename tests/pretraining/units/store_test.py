"""Units: Kaldi's MFCCs, clusters, interrupted assignment, alignment to crops as fairseq's, what a run refuses."""

import json
import os
import pickle
import shutil

import jax
import ml_collections
import numpy as np
import pytest
import scipy.fft
from benchmarks import data as data_benchmark

from voc2vec_jax import errors
from voc2vec_jax.datasets import corpora, records, resident
from voc2vec_jax.inference import pretrained
from voc2vec_jax.models import encoder, hubert
from voc2vec_jax.pretraining import batch_layout, batch_plan
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import reader as pretraining_reader
from voc2vec_jax.pretraining.units import layers as unit_layers
from voc2vec_jax.pretraining.units import making as unit_making
from voc2vec_jax.pretraining.units import store as unit_store

MFCC = unit_making.Mfcc()
RATE = 16_000


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 3000, samples).astype(np.int16)


def kaldi_mfcc(x):
    """Kaldi's definition written out in float64: feature-window.cc, mel-computations.cc, feature-mfcc.cc."""
    starts = range(0, len(x) - 400 + 1, 160)
    frames = np.stack([x[s : s + 400] for s in starts]).astype(np.float64)
    frames -= frames.mean(1, keepdims=True)
    frames -= 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], 1)
    frames *= (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    mel = lambda hz: 1127 * np.log(1 + hz / 700)  # noqa: E731
    edges = np.linspace(mel(20), mel(8000), 25)
    at = mel(np.arange(257) * RATE / 512)[None]
    up = (at - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - at) / (edges[2:] - edges[1:-1])[:, None]
    bank = np.maximum(np.minimum(up, down), 0)
    bank[:, 256] = 0  # Kaldi leaves the Nyquist bin out
    log_mel = np.log(np.maximum(power @ bank.T, np.finfo(np.float32).eps))
    cepstra = scipy.fft.dct(log_mel, type=2, norm="ortho", axis=1)[:, :13]
    return cepstra * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))


@pytest.mark.parametrize("samples", [400, 559, 560, 7321])
def test_mfccs_are_kaldis(samples):
    (found,) = MFCC.extract([noise(samples)])
    assert found.shape == ((samples - 400) // 160 + 1, 39)
    wanted = kaldi_mfcc(noise(samples) / 32768)
    assert np.abs(found[:, :13] - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_silence_is_at_the_floor_of_samples_in_one():
    (found,) = MFCC.extract([np.zeros(400, np.int16)])
    wanted = np.sqrt(23) * np.log(np.finfo(np.float32).eps)
    assert found[0, 0] == pytest.approx(wanted, rel=1e-5)
    assert np.abs(found[0, 1:]).max() < 1e-3


def test_clips_too_short_for_a_frame_have_none():
    for found in MFCC.extract([noise(399), noise(0)]):
        assert found.shape == (0, 39)


def test_deltas_are_slopes():
    (found,) = MFCC.extract([noise(4000)])
    for part in (0, 13):
        x, d = found[:, part : part + 13], found[:, part + 13 : part + 26]
        t = len(x)
        at = lambda i: x[min(max(i, 0), t - 1)]  # noqa: E731, B023
        wanted = [sum(n * (at(i + n) - at(i - n)) for n in (1, 2)) / 10 for i in range(t)]
        assert np.abs(d - wanted).max() < 1e-4
    line = np.arange(10, dtype=np.float32)[:, None] * 3
    assert np.allclose(unit_making.deltas(line)[2:-2], 3)


def test_the_nearest_centroid_is_the_nearest():
    rng = np.random.default_rng(0)
    x, centroids = rng.normal(size=(50, 6)).astype(np.float32), rng.normal(size=(9, 6)).astype(np.float32)
    wanted = np.linalg.norm(x[:, None] - centroids, axis=-1).argmin(1)
    assert np.array_equal(unit_making.nearest(x, centroids), wanted)
    assert np.array_equal(unit_layers.nearest(x[None], centroids)[0], wanted)


def test_clusters_are_found_again_and_too_few_frames_refused():
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 50, (5, 4)).astype(np.float32)
    frames = np.repeat(centres, 40, 0) + rng.normal(0, 0.1, (200, 4)).astype(np.float32)
    found = unit_making.fit(frames, 5, 0)
    assert np.array_equal(found, unit_making.fit(frames, 5, 0))
    assert np.abs(found[np.lexsort(found.T)] - centres[np.lexsort(centres.T)]).max() < 0.2
    with pytest.raises(errors.InputError, match="3 frames are too few for 4 clusters"):
        unit_making.fit(frames[:3], 4, 0)


def test_the_sample_is_a_share_of_every_set():
    rows = unit_making.sample_rows([100, 7], 0.1, 3)
    assert [len(each) for each in rows] == [10, 1]
    assert len(set(rows[0])) == 10 and np.array_equal(rows[0], np.sort(rows[0]))
    assert not np.array_equal(rows[0], unit_making.sample_rows([100, 7], 0.1, 4)[0])
    with pytest.raises(errors.InputError, match="share 0"):
        unit_making.sample_rows([100], 0.0, 3)


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """Two sets with clips from too short for a unit on, in lots of 8 records."""
    monkeypatch.setattr(unit_making, "ROWS_AT_ONCE", 8)
    lengths = {"one": np.random.default_rng(1).integers(400, 9000, 30), "two": np.full(5, 6000)}
    lengths["one"][[3, 20]] = 200, 399
    for seed, (name, samples) in enumerate(lengths.items()):
        data_benchmark.write_noise(tmp_path, name, samples, seed=seed, shard_count=2)
    return tmp_path


def make(data_dir, features=MFCC, name="few", clusters=4, **options):
    sets = ("one", "two")
    clustering = unit_making.make_clustering(name, data_dir, sets, features, clusters=clusters, share=0.3)
    opened = [records.open_set(data_dir, each) for each in sets]
    return clustering, [unit_making.make_units(name, each, clustering, features, **options) for each in opened]


def test_units_of_every_record_are_those_of_its_frames(data_dir):
    clustering, made = make(data_dir, workers=2)
    for prepared, found in zip([records.open_set(data_dir, name) for name in ("one", "two")], made):
        assert len(found.ends) == len(prepared)
        for row in range(len(prepared)):
            (frames,) = MFCC.extract(prepared.read([row]))
            assert np.array_equal(found.of(row), unit_making.nearest(frames, clustering.centroids))
    assert 0 in np.diff(made[0].ends)


class Dying(unit_making.Mfcc):
    """Fails at the third lot, as a kill would."""

    parallel = False
    lots = 0

    def assign(self, clips, centroids):
        Dying.lots += 1
        if Dying.lots == 3:
            raise KeyboardInterrupt
        return super().assign(clips, centroids)


def test_what_was_begun_is_continued_and_a_damaged_part_made_again(data_dir):
    clustering, (wanted, _) = make(data_dir)
    prepared = records.open_set(data_dir, "one")
    flat = np.array(wanted.flat)
    shutil.rmtree(wanted.folder)
    with pytest.raises(KeyboardInterrupt):
        unit_making.make_units("few", prepared, clustering, Dying())
    assert unit_store.load_units(wanted.folder) is None
    (partial,) = wanted.folder.parent.glob(".few-*.partial")
    first, second = sorted(partial.glob("part-*.npy"))
    second.write_bytes(second.read_bytes()[:-4])
    before = first.stat().st_mtime_ns
    seen = []

    class Counting(unit_making.Mfcc):
        parallel = False

        def assign(self, clips, centroids):
            seen.append(first.stat().st_mtime_ns)
            return super().assign(clips, centroids)

    found = unit_making.make_units("few", prepared, clustering, Counting())
    assert seen == [before] * 3  # lots 2, 3 and 4 of four
    assert np.array_equal(found.flat, flat) and np.array_equal(found.ends, wanted.ends)
    assert os.listdir(found.folder.parent) == ["few"]


def test_units_of_older_records_are_made_anew_and_another_clustering_is_refused(data_dir):
    _, (before, _) = make(data_dir)
    assert make(data_dir, features=Dying())[1][0].prepared == before.prepared  # nothing is computed again
    shutil.move(data_dir / "one", data_dir / "before")
    data_benchmark.write_noise(data_dir, "one", np.full(12, 5000), seed=9, shard_count=1)
    shutil.copytree(data_dir / "before" / "1.0.0" / "units", data_dir / "one" / "1.0.0" / "units")
    _, (after, _) = make(data_dir)
    assert len(after.ends) == 12 and after.prepared != before.prepared
    said = []
    unit_making.make_clustering("few", data_dir, ("one", "two"), MFCC, clusters=4, say=said.append)
    assert said == ["few: its clusters are of one as it was once; another name makes others"]
    with pytest.raises(errors.InputError, match="a clustering of clusters 4, not 5"):
        make(data_dir, clusters=5)
    centroids = unit_store.clustering_folder(data_dir, "few") / unit_store.CENTROIDS_FILE
    unit_store.save_array(centroids, np.load(centroids) + 1)
    with pytest.raises(errors.InputError, match="is not what was saved"):
        make(data_dir)


def fairseq_targets(label, start, samples, frames, rate, hop):
    """HubertDataset.collater_frm_label and HubertModel.forward_targets for one clip, line by line."""
    first = int(round(start * (rate / RATE)))
    size = int(round(samples * (rate / RATE)))
    size = min(size, len(label) - first)
    target = label[first : first + size]
    ratio = rate * hop / RATE
    if ratio * frames > len(target):
        frames = int(len(target) / ratio)
    return [target[int(k * ratio)] for k in range(frames)]


@pytest.mark.parametrize("rate", [100.0, 50.0])
def test_classes_are_aligned_as_in_fairseq(tmp_path, rate):
    e = encoder.EncoderConfig()
    rng = np.random.default_rng(0)
    samples = rng.integers(1000, 30_000, 40)
    counts = [int((n - 400) // (RATE / rate) + 1) for n in samples]
    label = [rng.integers(0, 900, n).astype(np.uint16) for n in counts]
    folders = [save(tmp_path / f"{k}", label[k::2], rate) for k in range(2)]
    targets = pickle.loads(pickle.dumps(unit_store.FrameTargets(folders, 320, {16_000: 49, 30_000: 93})))
    index = rng.permutation(40).reshape(2, 20)
    order = [*range(0, 40, 2), *range(1, 40, 2)]  # corpus row -> clip
    trimmed = 0
    for bucket in (16_000, 30_000):
        length = np.minimum(samples[order][index], bucket)
        length = np.where(rng.random(length.shape) < 0.3, np.minimum(length, 1200), length)
        start = (rng.random(length.shape) * (samples[order][index] - length + 1)).astype(np.int64)
        start[0, 0], length[0, 0] = 0, min(samples[order][index][0, 0], bucket)
        found = targets.classes(index, start, length, bucket)
        assert found.shape == (2, 20, e.frames(bucket))
        for where, row in np.ndenumerate(index):
            clip = label[order[row]]
            wanted = fairseq_targets(clip, start[where], length[where], e.frames(int(length[where])), rate, 320)
            got = found[where]
            assert np.array_equal(got[: len(wanted)], np.array(wanted) + 4)
            heard = e.frames(int(length[where]))
            trimmed += heard - len(wanted)
            assert len(wanted) >= heard - 1
            assert (got[len(wanted) : heard] == -1).all() and (got[heard + 1 :] == -1).all()
    assert trimmed > 0 or rate == 50
    nothing = targets.classes(np.full((1, 3), -1), np.zeros((1, 3), int), np.zeros((1, 3), int), 16_000)
    assert (nothing == -1).all()


def save(folder, label, rate):
    folder.mkdir()
    unit_store.save_array(folder / unit_store.UNITS_FILE, np.concatenate(label))
    unit_store.save_array(folder / unit_store.ENDS_FILE, np.cumsum([len(each) for each in label]).astype(np.int64))
    said = {"prepared": "p", "clustering": "c", "clusters": 900, "rate_hz": rate}
    unit_store.save_json(folder / unit_store.META_FILE, {**said, "frames": sum(map(len, label))})
    return folder


BUCKETS = (3000, 8000)
MODEL = hubert.Config(classes=8, label_rate_hz=100.0)


def config_of(data_dir, name="few"):
    return ml_collections.ConfigDict({"data_dir": str(data_dir), "units": name, "bucket_samples": BUCKETS})


def test_batches_hold_the_units_of_their_crops_from_disk_processes_and_devices(data_dir, tmp_path):
    make(data_dir)
    corpus = corpora.open_corpus(data_dir, ("one", "two"))
    targets = unit_store.targets_for_run(config_of(data_dir), MODEL, corpus, tmp_path / "run", copy=False)
    rows = np.flatnonzero(corpus.samples >= 1000)
    layout = batch_layout.BatchLayout(4, 2, BUCKETS[-1], BUCKETS, same_length_groups=1)
    drawn = batch_plan.BatchPlan(layout, corpus.samples, corpus.set_index, rows, seed=0)
    found = {}
    for workers in (0, 1):
        with pretraining_reader.read_batches(corpus, drawn, 1, 5, workers=workers, targets=targets) as batches:
            found[workers] = [batch["units"] for batch in batches]
    held = resident.Resident(corpus, rows)
    found["resident"] = [
        batch["units"] for batch in pretraining_data.resident_batches(held, corpus, drawn, 1, 5, targets=targets)
    ]
    seen = set()
    for k, batch in enumerate(found[0], start=1):
        step = batch_layout.host_rows(drawn, corpus.samples, k)
        seen.add(tuple(step.bucket))
        for g, (bucket, units) in enumerate(zip(step.bucket.tolist(), batch)):
            own = (x[g, : layout.group_rows_of(bucket)] for x in (step.index, step.start, step.lengths))
            wanted = targets.classes(*own, BUCKETS[bucket]).ravel()
            assert np.array_equal(units[: wanted.size], wanted) and wanted.max() >= unit_store.FIRST_CLASS
            assert np.all(units[wanted.size :] == -1)
    assert any(len(set(buckets)) == 2 for buckets in seen), "lengths are mixed"
    for other in (1, "resident"):
        assert all(np.array_equal(a, b) for a, b in zip(found[0], found[other], strict=True))
    with pretraining_reader.read_batches(corpus, drawn, 1, 2) as batches:
        assert set(next(batches)) == {"audio", "lengths", "index", "bucket"}


def test_a_run_keeps_its_units_and_is_told_what_does_not_fit(data_dir, tmp_path):
    corpus = corpora.open_corpus(data_dir, ("one", "two"))
    run = tmp_path / "run"

    def read(model=MODEL, name="few"):
        return unit_store.targets_for_run(config_of(data_dir, name), model, corpus, run, copy=True)

    with pytest.raises(errors.InputError, match=r"set one has no units few \(it has none\): run `voc2vec units"):
        read()
    with pytest.raises(errors.InputError, match="units is empty"):
        read(name="")
    clustering, (one, _) = make(data_dir)
    wanted = "few are 4 clusters at 100 Hz, .* 500 at 50 Hz: add --config.model.label_rate_hz=100.0 .*classes=8"
    with pytest.raises(errors.InputError, match=wanted):
        read(hubert.Config())
    assert not run.exists()
    assert unit_store.targets_for_run(None, object(), corpus, run, copy=True) is None
    whole = read().parts[0].flat[:].tolist()
    (run / "config.json").write_text(json.dumps({"units": "few"}))
    assert unit_store.clustering_of_run(str(run)) == clustering.fingerprint
    assert unit_store.clustering_of_run(str(data_dir)) is unit_store.clustering_of_run("owner/model") is None
    shutil.rmtree(one.folder)
    shutil.rmtree(unit_store.clustering_folder(data_dir, "few"))
    assert read().parts[0].flat[:].tolist() == whole
    shutil.rmtree(data_dir / "two")
    data_benchmark.write_noise(data_dir, "two", np.full(5, 6000), seed=9, shard_count=1)
    corpus = corpora.open_corpus(data_dir, ("one", "two"))
    with pytest.raises(errors.InputError, match="of other records of two"):
        read()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A small model in our own layout."""
    from voc2vec_jax.convert import reader, writer

    small = encoder.EncoderConfig(
        conv_channels=(8,) * 7, width=16, depth=2, heads=2, inner_width=32, positional_kernel=16, positional_groups=2
    )
    config = hubert.Config(small, classes=12, target_width=16)
    params = jax.device_get(jax.jit(hubert.init_params, static_argnums=0)(config, jax.random.key(0)))
    del params["encoder"]["mask_embedding"]  # as some published models
    folder = tmp_path_factory.mktemp("model")
    writer.write_jax(folder, reader.ModelWeights("hubert", config, params, normalize=True))
    return folder


@pytest.mark.slow
def test_units_of_a_layer_are_those_of_its_embeddings(data_dir, model_folder):
    features = unit_layers.Layer(str(model_folder), 1, batch_seconds=2.0)
    assert features.rate_hz == 50.0
    clustering, (one, _) = make(data_dir, features, "layer")
    prepared = records.open_set(data_dir, "one")
    model = pretrained.from_pretrained(model_folder)
    rows = [row for row in range(len(prepared)) if prepared.samples[row] >= 400]
    assert len(rows) < len(prepared)
    for row, frames in zip(rows, model.embed(prepared.read(rows), pool=None, layer=1)):
        distance = np.linalg.norm(frames[:, None] - clustering.centroids[None], axis=-1)
        near = np.take_along_axis(distance, one.of(row)[:, None].astype(int), 1)[:, 0]
        assert np.abs(near - distance.min(1)).max() < 1e-5
    assert len(one.of(next(row for row in range(len(prepared)) if prepared.samples[row] < 400))) == 0
    assert features.description != unit_layers.Layer(str(model_folder), 2).description
    with pytest.raises(errors.InputError, match="layer 3 is not there: .* has layers 0 to 2"):
        unit_layers.Layer(str(model_folder), 3)
