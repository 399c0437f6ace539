"""A recording computed alone, in a call of its own: the same numbers, in few shapes, in a process that was started."""

import os
import pickle
import subprocess
import sys

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
import torch

import voc2vec_jax as v2v
from voc2vec_jax import errors, models
from voc2vec_jax.inference import buckets, forking, pretrained, windowing

RATE = 16_000


def noise(*lengths):
    rng = np.random.default_rng(0)
    return [(0.1 * rng.normal(size=n) + 0.05).astype(np.float32) for n in lengths]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.write(tmp_path_factory.mktemp("model"), labels=("cry", "laugh"))


@pytest.fixture
def model(folder):
    return v2v.from_pretrained(folder)


CASES = [
    *(
        pytest.param(family, "", marks=[pytest.mark.slow] * (family != "wav2vec2"))
        for family in models.FAMILIES
        if family != "whisper"
    ),
    ("whisper", "cut"),
    ("whisper", "padded"),
]


@pytest.mark.parametrize(("family", "context"), CASES)
def test_how_far_a_clip_is_padded_changes_no_number_of_any_family(family, context):
    """Even the shortest clip, which is padded to many times its length; frames are those of the true length."""
    made = checkpoints.random_checkpoint(family, checkpoints.small_config(family))
    made = made.in_context(context or "auto")
    made.params["encoder"] = jax.tree.map(lambda x: 0.3 * x, made.params["encoder"])
    model = pretrained.Model(family, made)
    encoder = model.config.encoder
    for clip in noise(encoder.samples_for(1), 8_001):
        alone = model(clip[None])
        t = encoder.frames(len(clip))
        assert alone.frame_lengths[0] == (t if context != "padded" else encoder.frames(len(clip)))
        (found,) = model.embed([clip], pool=None, window_seconds=1.0, overlap_seconds=0.0)
        wanted = np.asarray(alone.last_hidden_state[0, :t])
        assert found.shape == wanted.shape and np.abs(wanted).max() > 0.1
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    padded = [bucket for *_, (rows, bucket) in model._shapes if rows == 1 and bucket >= 8_000]
    assert len(padded) >= 2  # to a bucket, and not to their own lengths


def test_calls_with_one_recording_each_share_few_shapes_and_keep_their_bits(model):
    clips = noise(*np.random.default_rng(1).choice(np.arange(400, 160_000), 40, replace=False).tolist())
    first = model.embed([clips[0]])
    before = [model.embed(clip)[0] for clip in clips]
    assert model.compilations <= 4
    np.testing.assert_array_equal(before[0], first[0])
    np.testing.assert_allclose(np.stack(before), model.embed(clips), atol=1e-5)
    labels = [model.predict(clip).labels[0] for clip in clips[:5]]
    assert labels == list(model.predict(clips[:5]).labels)
    assert model.compilations <= 6


def test_few_recordings_meet_the_same_coarse_candidates_and_many_get_their_own():
    shape = 16_000.0 * 10
    few = {buckets.growth([length], 1.0, shape) for length in (400, 9_000, 480_000)}
    assert len(few) == 1 and 1.25 < few.pop() < 1.5
    assert buckets.growth([48_000] * 200, 1.0, shape) == buckets.FINE_GROWTH
    assert buckets.growth([48_000] * 2, 100.0, shape) == buckets.FINE_GROWTH
    assert buckets.growth([400], 1.0, 100 * shape) == 4.0  # where computing is fast, compiling is what counts
    assert buckets.growth([400], 1.0, shape / 100) == 2**0.25
    encoder = checkpoints.small_config("wav2vec2").encoder
    unknown = windowing.WindowLayout(encoder, 30.0, 2.0, 64.0, shape_seconds=10.0, recurring=True).buckets
    for length in (5_000, 70_000, 300_000):
        known = windowing.WindowLayout(encoder, 30.0, 2.0, 64.0, lengths=[length], shape_seconds=10.0, recurring=True)
        assert set(known.buckets) <= set(unknown) and known.bucket(length) == min(b for b in unknown if b >= length)


def test_what_a_model_says_that_other_libraries_say_too(folder, model):
    assert (model.sampling_rate, model.hidden_size, model.dtype) == (RATE, 16, jnp.float32)
    for name in ("bfloat16", jnp.bfloat16, torch.bfloat16, jnp.dtype("bfloat16")):
        assert v2v.from_pretrained(folder, dtype=name).dtype == jnp.bfloat16
    assert v2v.from_pretrained(folder, dtype=np.float32).dtype == np.float32
    for wrong, shown in ((np.float64, "'float64'"), (3, "'3'"), (torch.int8, "'int8'")):
        with pytest.raises(errors.InputError, match=f"dtype {shown} is none of auto, float32"):
            v2v.from_pretrained(folder, dtype=wrong)


def test_a_warning_of_a_rate_comes_once(model, capsys):
    clip = np.concatenate(noise(44_100))
    model.embed([clip, clip])
    model.embed(clip)
    said = capsys.readouterr().err
    assert said.count("item 0 came without a rate and is taken as 16 kHz, but its 44,100 samples are 1 s") == 1
    assert said.count("came without a rate") == 1
    v2v.Model.embed(model, clip, sampling_rate=44_100)
    assert "without a rate" not in capsys.readouterr().err


def test_a_pickled_model_is_the_same_model(model):
    again = pickle.loads(pickle.dumps(model))
    assert again.fingerprint == model.fingerprint and repr(again) == repr(model)
    np.testing.assert_array_equal(again.embed(noise(4_000)), model.embed(noise(4_000)))


def test_a_fork_is_told_that_it_cannot_compute(folder, model, monkeypatch):
    child = os.getpid() + 1
    monkeypatch.setattr(forking.os, "getpid", lambda: child)
    for call in (
        lambda: model.embed(noise(4_000)),
        lambda: model.predict(noise(4_000)),
        lambda: model(noise(4_000)[0][None]),
        lambda: v2v.from_pretrained(folder),
        lambda: pickle.loads(pickle.dumps(model)),
    ):
        with pytest.raises(
            errors.RunError, match="forked .* JAX cannot compute after a fork: start workers with spawn"
        ):
            call()


PROGRAM = """
import sys
import numpy as np, torch
import voc2vec_jax as v2v

class Vectors(torch.utils.data.Dataset):
    def __init__(self, model, clips):
        self.model, self.clips = model, clips
    def __len__(self):
        return len(self.clips)
    def __getitem__(self, index):
        return self.model.embed(self.clips[index], sampling_rate=16_000)[0]

if __name__ == "__main__":
    model = v2v.from_pretrained(sys.argv[1])
    rng = np.random.default_rng(0)
    data = Vectors(model, [rng.normal(size=n).astype(np.float32) for n in (4000, 5000, 6000, 7000)])
    loader = torch.utils.data.DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=sys.argv[2])
    found = torch.cat(list(loader)).numpy()
    print(np.abs(found - np.stack([data[k] for k in range(4)])).max() < 1e-6)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_in_the_workers_of_a_torch_data_loader(method, folder, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(folder), method]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    if method == "spawn":
        assert done.stdout.strip() == "True", done.stderr[-2000:]
    else:
        assert done.returncode and "JAX cannot compute after a fork: start workers with spawn" in done.stderr
