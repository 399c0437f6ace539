"""Every form in which recordings are given is the same recording, and what is none is named."""

import io

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import items, loading, rate_doubts

RATE = 22_050
SAMPLES = np.random.default_rng(0).integers(-9000, 9000, 11_111, dtype=np.int16)
FLOATS = (SAMPLES / 32768).astype(np.float32)
TENSOR = torch.from_numpy(FLOATS.copy())


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "a.wav"
    soundfile.write(path, SAMPLES, RATE)
    return path


@pytest.fixture(scope="module")
def clip(wav):
    return audio.load(wav)


class Decoder:
    """As torchcodec's, which decodes when it is asked."""

    def get_all_samples(self):
        class Samples:
            data, sample_rate = torch.stack([TENSOR, TENSOR]), RATE

        return Samples


def loads(given, rate=None):
    listed, names = items.listed(given, rate)
    return [loading.load(k, item, 1) for k, item in enumerate(listed)], names


FORMS = {
    "path": (lambda wav: str(wav), None),
    "Path": (lambda wav: wav, None),
    "folder": (lambda wav: wav.parent, None),
    "list of Path": (lambda wav: [wav], None),
    "Series": (lambda wav: pd.Series([str(wav)], index=[7]), None),
    "Series of text": (lambda wav: pd.Series([str(wav)], dtype="string"), None),
    "Index": (lambda wav: pd.Index([str(wav)]), None),
    "array of names": (lambda wav: np.array([str(wav)]), None),
    "iterator": (lambda wav: iter([wav]), None),
    "array": (lambda wav: FLOATS, RATE),
    "float64": (lambda wav: [FLOATS.astype(np.float64)], float(RATE)),
    "int16": (lambda wav: [SAMPLES], np.int64(RATE)),
    "JAX": (lambda wav: jnp.asarray(FLOATS), RATE),
    "list of numbers": (lambda wav: [FLOATS.tolist()], RATE),
    "pair": (lambda wav: (FLOATS, RATE), None),
    "pair of SciPy": (lambda wav: (RATE, SAMPLES), None),
    "pair in a list": (lambda wav: [(RATE, SAMPLES)], None),
    "pair with a rate of its own": (lambda wav: [(FLOATS, RATE)], 8_000),
    "pair of torchaudio": (lambda wav: (TENSOR[None], RATE), None),
    "rate in a tensor": (lambda wav: (TENSOR, torch.tensor(RATE)), None),
    "rate in a tensor, first": (lambda wav: (torch.tensor(RATE), TENSOR), None),
    "tensor with a gradient": (lambda wav: TENSOR.clone().requires_grad_(), RATE),
    "batch": (lambda wav: TENSOR[None], RATE),
    "dict with an array": (lambda wav: {"array": FLOATS, "sampling_rate": RATE, "path": "b.wav"}, None),
    "dict with a rate of its own": (lambda wav: {"array": FLOATS, "sampling_rate": RATE}, 8_000),
    "dict of a pipeline": (lambda wav: {"raw": FLOATS.tolist(), "sampling_rate": RATE}, None),
    "dict with bytes": (lambda wav: {"bytes": wav.read_bytes(), "path": "b.wav"}, None),
    "dict with a path": (lambda wav: {"bytes": None, "path": str(wav)}, None),
    "row of a data set": (lambda wav: [{"audio": {"array": FLOATS, "sampling_rate": RATE}, "label": 3}], None),
    "decoder": (lambda wav: [Decoder()], None),
    "bytes": (lambda wav: wav.read_bytes(), None),
    "BytesIO at its end": (lambda wav: at_its_end(wav), None),
    "open file": (lambda wav: open(wav, "rb"), None),  # noqa: SIM115
}


def at_its_end(wav):
    file = io.BytesIO()
    file.write(wav.read_bytes())
    return file


@pytest.mark.filterwarnings("ignore:unclosed file")
@pytest.mark.parametrize("form", FORMS)
def test_one_recording_in_any_form_is_the_same_audio(form, wav, clip):
    given, rate = FORMS[form]
    (found,), _ = loads(given(wav), rate)
    np.testing.assert_allclose(found, clip, atol=1e-6)


def test_a_batch_is_its_rows_and_many_forms_mix(wav, clip):
    (first, second), names = loads(np.stack([FLOATS, -FLOATS]), RATE)
    np.testing.assert_allclose(first, clip, atol=1e-6)
    np.testing.assert_allclose(second, -clip, atol=1e-6)
    assert names == ["item 0", "item 1"]
    file = at_its_end(wav)
    found, names = loads([FLOATS, (SAMPLES, RATE), wav, file, file, {"array": FLOATS, "path": "x"}], RATE)
    assert all(np.abs(one - clip).max() < 1e-6 for one in found)
    assert names == ["item 0", "item 1", str(wav), "item 3", "item 3", "x"]


def test_narrow_tensors_are_arrays(clip):
    (found,), _ = loads(TENSOR.to(torch.bfloat16), RATE)
    np.testing.assert_allclose(found, clip, atol=2e-3)


def test_a_folder_is_its_recordings_by_name(tmp_path, capsys):
    for name in ("b/1.wav", "a/2.flac", "a/10.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, SAMPLES, RATE)
    (tmp_path / "a" / "notes.txt").write_text("cry")
    found, names = loads(tmp_path)
    assert names == [str(tmp_path / name) for name in ("a/10.wav", "a/2.flac", "b/1.wav")] and len(found) == 3
    (tmp_path / "none").mkdir()
    with pytest.raises(errors.InputError, match="none holds no audio file"):
        items.listed(tmp_path / "none")


def closed():
    file = io.BytesIO(b"x")
    file.close()
    return file


class Stream(io.BytesIO):
    def seekable(self):
        return False


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "items is empty"),
        (3, "items is a int: give a path, an array"),
        ({"a.wav", "b.wav"}, "items is a set, which has no order: give a list"),
        (pd.DataFrame({"file": ["a.wav"]}), r"items is a DataFrame: give its column of files, such as items\['file'\]"),
        ([""], "item 0 is an empty path"),
        ([0.5], "item 0 is a float: give a path, an array"),
        (pd.Series(["a.wav", None]), r"item 1 is missing \((None|nan)\): leave it out, as files.dropna\(\) does"),
        (pd.Series(["a.wav", None], dtype="string"), r"item 1 is missing \(<NA>\): leave it out"),
        (["s3://a/b.wav"], "item 0 is an address of s3, and those of http and https are fetched: fetch it yourself"),
        ("file:///a/b.wav", "item 0 is an address of file, "),
        ([FLOATS, ["a.wav"]], "item 1 is a list: give a path, an array"),
        ([np.zeros((500, 2), np.float32)], r"item 0 has shape \(500, 2\): give mono.* mean over its channels"),
        (np.zeros((2, 3, 400)), r"items has shape \(2, 3, 400\): give \[samples\]"),
        (np.float32(0.5), r"items has shape \(\)"),
        ([np.zeros(500, np.int32)], "item 0 holds int32: give floats"),
        ([(FLOATS, 0.5)], "item 0 has the rate 0.5"),
        ([(FLOATS, 16)], "item 0 has the rate 16: give whole Hz"),
        ([(FLOATS, True)], "item 0 has the rate True"),
        ([(FLOATS, "a.wav")], "item 0 has the rate 'a.wav'"),
        ([{"label": 3}], "item 0 is a dict with label: give array and sampling_rate, bytes or path"),
        ([{"array": FLOATS, "sampling_rate": 16}], "item 0 has the rate 16"),
        ([io.StringIO("x")], "item 0 is a file opened as text: open it with mode 'rb'"),
        ([closed()], "item 0 is a closed file"),
        ([Stream(b"x")], r"item 0 is a file that cannot be read twice: give io.BytesIO\(file.read\(\)\)"),
    ],
)
def test_what_is_no_item_is_refused(given, sentence):
    with pytest.raises(errors.InputError, match=sentence):
        items.listed(given)


@pytest.mark.parametrize("rate", [0, 16, 0.5, "16000", np.nan, True])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(errors.InputError, match="sampling_rate is .*: give whole Hz, 1000 or more"):
        items.listed([FLOATS], rate)


def test_a_bare_array_is_told_from_one_with_a_rate():
    assert isinstance(items.listed(FLOATS)[0][0], np.ndarray)
    assert items.listed(FLOATS, 8_000)[0][0][1] == 8_000


def test_a_file_that_is_no_recording_is_named_by_its_place_or_name(tmp_path):
    (tmp_path / "b.wav").write_bytes(b"hello there")
    for given, name in ((io.BytesIO(b"hello there"), "item 0"), (open(tmp_path / "b.wav", "rb"), "b.wav")):  # noqa: SIM115
        with given, pytest.raises(errors.InputError, match=name):
            loads([given])


def voice(rate, seconds=3.0):
    """Harmonics of 150 Hz up to 5 kHz, falling, with a little noise: a sung vowel."""
    t = np.arange(round(rate * seconds) + 7) / rate
    tones = sum(np.sin(2 * np.pi * 150 * k * t) / k**2 for k in range(1, 33))
    return (0.2 * tones + 1e-3 * np.random.default_rng(0).normal(size=t.size)).astype(np.float32)


def test_samples_that_are_hardly_a_voice_at_16_khz_are_doubted():
    assert rate_doubts.doubt(voice(16_000)) is None
    assert "below 450 Hz" in rate_doubts.doubt(voice(96_000))
    noise = np.random.default_rng(0).normal(size=5 * 44_100)
    assert "220,500 samples are 5 s at 44,100 Hz or 10 s at 22,050 Hz" in rate_doubts.doubt(noise)
    assert rate_doubts.doubt(np.full(64_000, np.inf)) is None
    assert rate_doubts.doubt(noise[1:]) is None and rate_doubts.doubt(noise[:64_000]) is None
    assert rate_doubts.doubt(np.zeros(0, np.int16)) is None and rate_doubts.doubt(np.zeros(64_000)) is None
    assert rate_doubts.first([noise[1:], "a.wav", noise]).startswith("item 2 came without a rate")
    assert rate_doubts.first([(noise, 44_100)]) is None
