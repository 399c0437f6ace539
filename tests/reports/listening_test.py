"""What a page plays: the clip that was tested, cut from the right file, and a sentence where there is none."""

import base64
import io
import re

import fake_runs
import numpy as np
import pytest
import soundfile

from voc2vec_jax import audio
from voc2vec_jax.reports import build, details, listening
from voc2vec_jax.reports import page as report_page
from voc2vec_jax.reports import runs as report_runs


def write_tone(path, hertz, seconds=4.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * hertz * np.arange(int(44100 * seconds)) / 44100), 44100)


def prediction(path, start=1.5, seconds=2.25):
    return details.ReportedPrediction(0, "id<", path, start, seconds, "anger", "fear", 0.9)


def heard_hertz(content):
    """The loudest frequency of a sound file, and its length in seconds."""
    samples = audio.load(io.BytesIO(content))
    spectrum = np.abs(np.fft.rfft(samples))
    return spectrum.argmax() * audio.RATE_HZ / len(samples), len(samples) / audio.RATE_HZ


def played(player):
    """The piece of the page that plays one clip."""
    return str(report_page.templates().get_template("parts.html.j2").module.player(player))


def test_a_clip_is_cut_from_its_file_whatever_its_name_and_lies_beside_the_page_once(tmp_path):
    name = "anger/über 100%#1 'a\"b?&.wav"
    write_tone(tmp_path / "own files" / name, 440)
    run = report_runs.read(fake_runs.write(tmp_path / "run", audio_root=tmp_path / "own files"))
    clips = listening.Clips("r_audio")
    first, again = (clips.player(run, prediction(name)) for _ in range(2))
    assert first.source == again.source == "r_audio/001_id.mp3" and list(clips.files) == ["001_id.mp3"]
    hertz, seconds = heard_hertz(clips.files["001_id.mp3"])
    assert hertz == pytest.approx(440, abs=2) and seconds == pytest.approx(2.25, abs=0.15)
    assert "id&lt;" in played(first) and 'src="r_audio/001_id.mp3"' in played(first)


def test_an_embedded_clip_is_in_the_page_and_no_file_is_left(tmp_path):
    write_tone(tmp_path / "audio" / "a.wav", 1000)
    run = report_runs.read(fake_runs.write(tmp_path / "run", audio_root=tmp_path / "audio"))
    clips = listening.Clips("r_audio", embedded=True)
    kind, _, content = clips.player(run, prediction("a.wav")).source.partition(",")
    assert kind == "data:audio/mpeg;base64" and not clips.files
    assert heard_hertz(base64.b64decode(content))[0] == pytest.approx(1000, abs=2)


def test_the_folder_given_goes_first_and_what_is_unpacked_below_it_is_found(tmp_path):
    write_tone(tmp_path / "own" / "a.wav", 300)
    write_tone(tmp_path / "moved" / "vivae" / "a.wav", 600)
    write_tone(tmp_path / "unpacked" / "archive-main" / "dataset" / "a.wav", 900)
    run = report_runs.read(fake_runs.write(tmp_path / "run", audio_root=tmp_path / "own"))
    for folder, hertz in ((None, 300), ("moved", 600), ("unpacked", 900)):
        clips = listening.Clips("r_audio", folder and tmp_path / folder)
        clips.player(run, prediction("a.wav"))
        (content,) = clips.files.values()
        assert heard_hertz(content)[0] == pytest.approx(hertz, abs=2)


def test_a_clip_is_heard_as_its_run_read_it(tmp_path):
    left, right = (0.4 * np.sin(2 * np.pi * hertz * np.arange(64000) / 16000) for hertz in (500, 800))
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", np.stack([0.1 * left, right], 1), 16000)
    folder = fake_runs.write(tmp_path / "run", audio_root=tmp_path / "audio")
    for config, hertz in (("{}", 800), ('{"channel": "first"}', 500), ('{"channel": ["no"]}', 800), ("no", 800)):
        (folder / "config.json").write_text(config)
        clips = listening.Clips("r_audio")
        clips.player(report_runs.read(folder), prediction("a.wav"))
        (content,) = clips.files.values()
        assert heard_hertz(content)[0] == pytest.approx(hertz, abs=2), config


@pytest.mark.parametrize(
    ("path", "root", "says"),
    [
        ("", "here", "This clip has no file of its own."),
        ("a.wav", None, "The run does not know where its recordings are; give --audio=FOLDER."),
        ("<a>.wav", "here", "The recording <bdi>&lt;a&gt;.wav</bdi> was not found; give --audio=FOLDER."),
        ("../secret.wav", "here", "leads out of its folder"),
        ("/secret.wav", "here", "leads out of its folder"),
        ("broken.wav", "here", "This clip cannot be played: broken.wav"),
    ],
)
def test_a_file_that_cannot_be_played_is_a_sentence_without_a_path_of_the_machine(path, root, says, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "broken.wav").write_bytes(b"RIFF")
    write_tone(tmp_path / "secret.wav", 440)
    run = report_runs.read(fake_runs.write(tmp_path / "run", audio_root=root and tmp_path / root))
    clips = listening.Clips("r_audio")
    text = played(clips.player(run, prediction(path)))
    assert re.search(says, text) and "<audio" not in text and not clips.files and str(tmp_path) not in text


def test_wrong_clips_are_wrong_and_by_falling_confidence():
    rows = [details.ReportedPrediction(0, str(at), "", 0, 1, "a", "ab"[at % 2], at / 40) for at in range(40)]
    got = listening.wrong_clips(rows)
    assert [row.id for row in got] == [str(at) for at in range(39, 19, -2)]


def test_every_class_has_its_surest_right_and_its_surest_wrong_clip(tmp_path):
    run = report_runs.read(fake_runs.write(tmp_path / "run", skill=1.0, clips=90))
    rows = details.predictions(run)
    found = listening.examples(run, rows)
    assert [each.label for each in found] == list(run.labels)
    for each in found:
        own = [row for row in rows if row.label == each.label]
        assert each.clips == len(own)
        for one, same in ((each.right, True), (each.wrong, False)):
            of_kind = [row.probability for row in own if (row.predicted == each.label) == same]
            assert one.label == each.label and one.probability == max(of_kind)
    perfect = [row._replace(predicted=row.label) for row in rows]
    assert all(each.wrong is None and each.right for each in listening.examples(run, perfect))


def test_of_many_classes_the_largest_have_examples(tmp_path, monkeypatch):
    monkeypatch.setattr(listening, "EXAMPLE_CLASSES", 2)
    run = report_runs.read(fake_runs.write(tmp_path / "run", clips=31))  # the first class has a clip more
    found = listening.examples(run, details.predictions(run))
    assert [each.label for each in found] == ["anger", "fear"] and found[0].clips == 11


def test_only_the_best_runs_of_a_data_set_have_examples_of_every_class(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "draw", lambda *words: [])
    for at in range(5):
        fake_runs.write(tmp_path / "vivae" / f"s{at}", system=f"s{at}", skill=at, folds=2 if at == 4 else 3)
    runs = report_runs.find([tmp_path]).runs
    assert [run.name for run in listening.with_examples(runs)] == ["s1", "s2", "s3"]  # the last is not complete
    text = build.write([tmp_path], tmp_path / "r.html").page.read_text()
    assert text.count("Every class, right and wrong") == 3 and text.count("Most confidently wrong") == 5
