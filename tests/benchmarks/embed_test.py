"""The benchmark of embedding measures programs that compute the same vectors."""

import checkpoints
import numpy as np
import pytest
import soundfile
from benchmarks import embed as embed_benchmark
from benchmarks import measuring

from voc2vec_jax import errors
from voc2vec_jax.convert import reader, writer
from voc2vec_jax.inference import forward, pretrained


@pytest.mark.slow
def test_both_sides_embed_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "matmul_rate", lambda dtype: 1e9)
    checkpoints.source(tmp_path / "model", "Wav2Vec2Model")
    writer.write_fairseq(tmp_path / "model.pt", reader.read(tmp_path / "model"))
    (tmp_path / "clips").mkdir()
    rng = np.random.default_rng(0)
    for number, samples in enumerate((5000, 2000, 7000, 3000)):
        soundfile.write(tmp_path / "clips" / f"{number}.wav", 0.001 * rng.normal(size=samples), 16_000)
    settings = embed_benchmark.EmbedBenchmark(
        str(tmp_path / "clips"),
        str(tmp_path / "model.pt"),
        clips=3,
        against="transformers",
        batch_seconds=2.0,
        evaluate=True,
    )
    figures = {figure["figure"]: figure for figure in embed_benchmark.figures(settings)}
    assert all(figure["files"] == 3 and figure["audio_seconds"] == 0.9 for figure in figures.values())
    alone = figures["embed with a call for each file, with compilation"]
    assert alone["largest_difference"] < 1e-5 and alone["seconds_to_those_of_a_list"] > 0
    assert figures["embed shuffled and grouped otherwise"]["largest_difference"] < 1e-5
    assert figures["embed voc2vec_jax"]["difference"] < 1e-5
    assert figures["embed voc2vec_jax, evaluate"]["difference"] < 1e-5
    assert figures["embed transformers, clips singly"]["difference"] < 1e-5
    assert figures["embed transformers, padded batches of 16"]["difference"] > 1e-3  # its group norm sees padding
    timed = [figure for figure in figures.values() if "ratio" in figure]
    assert len(timed) == 5 and all(f["audio_seconds_per_second"] > 0 and f["process_peak_mb"] > 1 for f in timed)
    assert min(f["ratio"] for f in timed if "transformers" in f["figure"]) == 1
    slower, faster = sorted(timed, key=lambda f: f["audio_seconds_per_second"])[::4]
    assert slower["share_of_matmul_rate"] <= faster["share_of_matmul_rate"] and slower["ratio"] >= faster["ratio"]


def test_turns_compile_nothing(tmp_path):
    """Evaluation holds the model's parameters elsewhere; what `embed` is compiled for stays as it is."""
    checkpoints.source(tmp_path / "model", "Wav2Vec2Model")
    model = pretrained.from_pretrained(tmp_path / "model")
    path = tmp_path / "one.wav"
    soundfile.write(path, 0.001 * np.random.default_rng(0).normal(size=5000), 16_000)
    ways = [lambda: model.embed([path]), embed_benchmark.evaluation_way(model, [path], None)]
    first = [way() for way in ways]
    compiled = forward.compiled_embed("cpu")._cache_size()
    for way, vectors in zip(ways, first):
        np.testing.assert_array_equal(way(), vectors)
    assert forward.compiled_embed("cpu")._cache_size() == compiled


def test_padding_is_counted(tmp_path):
    checkpoints.source(tmp_path / "model", "Wav2Vec2Model")
    model = pretrained.from_pretrained(tmp_path / "model")
    counted = embed_benchmark._shapes(model, [16_000] * 4 + [32_000], 2.0)  # one of the coarse candidates
    assert (counted["lengths"], counted["batches"]) == (1, 5)
    assert counted["share_of_padding"] == round(1 - (4 * 16_000 + 32_000) / (5 * 32_000), 3)
    alike = embed_benchmark._shapes(model, [32_000] * 9, 4.0)
    assert (alike["shapes"], alike["batches"]) == (2, 5) and alike["share_of_padding"] < 0.05


def test_files_are_taken_evenly_and_shuffled_on_request(tmp_path):
    for number in range(19):
        (tmp_path / f"{number:02d}.wav").touch()
    taken = [
        embed_benchmark._files(embed_benchmark.EmbedBenchmark(str(tmp_path), clips=10, order=o))
        for o in ("paths", "shuffled")
    ]
    assert [int(path.stem) for path in taken[0]] == [0, 1, 3, 5, 7, 9, 11, 13, 15, 17]
    assert taken[1] != taken[0] and sorted(taken[1]) == taken[0]
    assert len(embed_benchmark._files(embed_benchmark.EmbedBenchmark(str(tmp_path), clips=50))) == 19


def test_sides_take_turns_there_and_back():
    assert embed_benchmark._turns(["a", "b", "c"], 3) == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]


def test_a_folder_without_audio_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match="holds no audio file"):
        next(embed_benchmark.figures(embed_benchmark.EmbedBenchmark(str(tmp_path))))
    with pytest.raises(errors.InputError, match="absent is not a folder"):
        next(embed_benchmark.figures(embed_benchmark.EmbedBenchmark(str(tmp_path / "absent"))))
