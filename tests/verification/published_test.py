"""Published numbers: the draws they hold for, the recordings they need, and what is said where these are missing."""

import hashlib
import http.server
import io
import threading

import huggingface_hub
import numpy as np
import pytest
import soundfile

from voc2vec_jax import errors
from voc2vec_jax.verification import (
    published,
    published_checks,
    published_clips,
    published_draws,
    published_numbers,
    systems,
)

SPEECH, PLUMBING = published_numbers.SPEECH, published_numbers.PLUMBING


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    published_clips._table.cache_clear()


def tone(path, seconds):
    rate = published_clips.audio.RATE_HZ
    soundfile.write(path, 0.5 * np.sin(np.arange(round(rate * seconds)) / 9), rate)


def test_masks_are_those_of_transformers():
    # 326 frames are those of 6.54 s; the starts are what _compute_mask_indices draws from the same seed
    masks = published_draws.masks(np.random.RandomState(published_numbers.COSINES_SEED), 2, 326)
    starts = [np.flatnonzero(np.diff(row, prepend=False) & row).tolist() for row in masks]
    assert starts == [[134, 291], [66, 304]]
    assert masks.sum() == len(published_numbers.COSINES)
    assert published_draws.masks(np.random.RandomState(0), 1, 60).sum() == 20  # two spans, however short the row


def test_negatives_are_other_masked_frames_of_the_row():
    generator = np.random.RandomState(0)
    masked = np.zeros((2, 50), bool)
    masked[0, 3:13] = masked[1, :20] = True
    first, second = published_draws.negatives(generator, masked)
    for drawn, count in ((first, 10), (second, 20)):
        assert drawn.shape == (count, published_numbers.NEGATIVES)
        assert not (drawn == np.arange(count)[:, None]).any()
        assert sorted(set(drawn.flat)) == list(range(count))
    assert first[0, :6].tolist() == [6, 1, 4, 4, 8, 4]  # of _sample_negative_indices


def test_every_frame_has_a_unit_and_every_place_a_number():
    frames = len(published_numbers.HUBERT_UNITS)
    assert frames == published_numbers.HUBERT_SHAPE[0] == round(16000 * PLUMBING.seconds) // 320
    assert 0 <= published_numbers.HUBERT_UNITS.min() <= published_numbers.HUBERT_UNITS.max() < 500
    assert published_numbers.HUBERT_FEATURES.shape == (len(published_numbers.HUBERT_FRAMES), 8)


def test_what_is_not_covered_says_so_and_is_not_read(monkeypatch):
    monkeypatch.setattr(systems, "opened", lambda *where: pytest.fail(f"{where} is read"))
    rows = published.rows(["voc2vec", "someone/model"], None)
    assert [(row.system, row.source, row.verdict, row.failed) for row in rows] == [
        ("voc2vec", "alkiskoudounas/voc2vec", "not checked", False),
        ("someone/model", "someone/model", "not checked", False),
    ]
    assert (
        rows[0].why
        == "the test suites that are compared have no numbers of it, only of wavlm-plus, wav2vec2-ls, hubert-ls"
    )


def test_without_its_recordings_no_model_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(systems, "opened", lambda *where: pytest.fail(f"{where} is read"))
    rows = published.rows(["wavlm-plus", "hubert-ls"], tmp_path)
    assert [row.verdict for row in rows] == ["not checked"] * 3
    assert "librispeech_asr_dummy cannot be fetched" in rows[0].why and "--recordings" in rows[0].why
    assert rows[1].why.startswith("HF_HUB_OFFLINE is set, and https://raw.githubusercontent.com/facebookresearch/")


def test_a_recording_of_another_length_is_not_taken(tmp_path):
    tone(tmp_path / f"{PLUMBING.stem}.wav", 3)
    with pytest.raises(published_clips.Missing, match=r"6313-76958-0021.wav has 3.00 s, and 6313-76958-0021 has 11.9"):
        published_clips.Recordings(tmp_path).clip(PLUMBING)


def test_recordings_are_found_below_the_folder(tmp_path):
    folder = tmp_path / "dev-clean" / "1272" / "141231"
    folder.mkdir(parents=True)
    tone(folder / f"{SPEECH[0].stem}.flac", 4.65)
    assert len(published_clips.Recordings(tmp_path).clip(SPEECH[0])) == 74400


def test_recordings_come_out_of_the_table_that_was_published(monkeypatch, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(74400), 16000, format="FLAC")
    rows = [{"id": SPEECH[0].stem, "audio": {"bytes": sound.getvalue(), "path": "a.flac"}, "text": "A MAN"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "table.parquet")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "table.parquet"))
    found = published_clips.Recordings(None)
    with pytest.raises(published_clips.Missing, match="another file than that of the test suite"):
        found.clip(SPEECH[0])
    made = hashlib.sha256((tmp_path / "table.parquet").read_bytes()).hexdigest()
    monkeypatch.setattr(published_numbers, "TABLE_SHA256", made)
    assert len(found.clip(SPEECH[0])) == 74400
    with pytest.raises(published_clips.Missing, match="has no 1272-141231-0001"):
        found.clip(SPEECH[1])


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match="--recordings=.*none is not a folder"):
        published.rows(["voc2vec"], tmp_path / "none")


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 4)), r"a.npy holds float64\(3, 4\), and floats of \(4, 3\) are needed"),
        (np.zeros((4, 3), int), "a.npy holds int64"),
        (np.array([{}] * 12).reshape(4, 3), "a.npy cannot be read as an array"),  # a pickle, which is not read
    ],
)
def test_an_array_of_another_kind_is_not_taken(tmp_path, array, says):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(published_clips.Missing, match=says):
        published_clips.Recordings(tmp_path).array("a.npy", (4, 3))


def test_arrays_that_claim_more_than_they_hold_are_not_taken(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros((4, 3)))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(published_clips.Missing, match="a.npy is an archive of arrays"):
        published_clips.Recordings(tmp_path).array("a.npy", (4, 3))
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 50,)})
    with pytest.raises(published_clips.Missing, match="a.npy cannot be read as an array"):
        published_clips.Recordings(tmp_path).array("a.npy", (4, 3))


def test_what_is_not_a_number_differs():
    found = published_checks._against([1.0, float("nan")], [1.0, 1.0], 1e-3)
    assert found.excess > 1
    assert published_checks._against([1.0005], [1.0], 1e-3).excess <= 1 < published_checks._against(2, 1, 0.1).excess


@pytest.fixture
def server(monkeypatch):
    """The address of a server whose only file is b"sound"."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"sound")

        def log_message(self, *_):
            pass

    monkeypatch.delenv("HF_HUB_OFFLINE")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/a.flac"
        running.shutdown()


def test_a_fetched_file_must_be_the_one_that_was_published(server):
    assert published_clips._fetched(server, hashlib.sha256(b"sound").hexdigest()) == b"sound"
    with pytest.raises(published_clips.Missing, match="another file than that of the test suite"):
        published_clips._fetched(server, PLUMBING.sha256)
