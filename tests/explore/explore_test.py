"""`voc2vec explore`: from a folder of clips to vectors, a map, a probe, copies and a page that needs nothing else."""

import base64
import contextlib
import csv
import hashlib
import importlib
import io
import os
import re
import shutil
import sys
import types

import browsers
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from voc2vec_jax.datasets.published import synthetic
from voc2vec_jax.finetuning import feature_sets
from voc2vec_jax.programs import explore
from voc2vec_jax.runs import extras, program

CLIPS, WIDTH, FOLDS = 18, 6, "--folds=3"


def vectors(task, source, layer, context, *, cache_dir):
    """What stands for a model: the class in one number, noise in the others."""
    found = np.random.default_rng(len(task)).normal(size=(len(task), WIDTH)).astype(np.float32)
    found[:, 0] += [8 * name.startswith("laugh") for name in task.ids.tolist()]
    return found


@pytest.fixture(scope="module", autouse=True)
def small():
    """One process decodes, and no model is needed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voc2vec_jax.datasets.worker_processes.cores", lambda: 1)
        patch.setattr(feature_sets, "model_features", vectors)
        yield


def write_clips(folder):
    """Folders `cry` and `laugh<b>` of nine clips each, one a copy across the two, and one file that is no sound."""
    voices = synthetic.Vocalizer(3)
    for k in range(CLIPS):
        path = folder / ("cry", "laugh<b>")[k % 2] / f"{k:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, voices.load(str(k if k != 5 else 4)), 16_000)
    (folder / "cry" / "broken.wav").write_bytes(b"RIFF nothing")
    return folder


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    """(folder of clips, what the program said on stdout, and on stderr) of a first exploration."""
    folder = write_clips(tmp_path_factory.mktemp("explore") / "My Clips")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert run(folder, FOLDS) == 0
    return folder, out.getvalue(), err.getvalue()


def run(clips, *more):
    return program.run(explore.main, [str(clips), "--model=voc2vec-ls", f"--output={clips.parent / 'out'}", *more])


def page_of(clips):
    return (clips.parent / "out" / "explore.html").read_text()


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_vectors_a_map_a_probe_copies_and_a_page(explored, capsys):
    clips, last, said = explored
    out = clips.parent / "out"
    assert last == f"{out / 'explore.html'}\n"
    assert "1 clip of My Clips left out: cry/broken.wav" in said and "a linear probe in 3 folds: UAR 1.000 [" in said

    table = pq.read_table(out / "vectors.parquet")
    names = table["id"].to_pylist()
    assert len(names) == CLIPS and table["vector"].type.list_size == WIDTH
    assert set(table["label"].to_pylist()) == {"cry", "laugh<b>"} and set(table["group"].to_pylist()) <= {
        None,
        names[0],
    } | set(names)
    assert all(0 <= x <= 1 for x in table["map_x"].to_pylist()) and max(table["map_y"].to_pylist()) == 1
    rows = rows_of(out / "vectors.csv")
    assert [row["id"] for row in rows] == names and f"v{WIDTH - 1}" in rows[0] and f"v{WIDTH}" not in rows[0]
    stored = np.array(table["vector"].to_pylist())
    np.testing.assert_allclose([float(row["v0"]) for row in rows], stored[:, 0], rtol=1e-5)
    right = np.mean([row["predicted"] == row["label"] for row in rows])
    assert right == 1 and all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    (pair,) = rows_of(out / "copies.csv")
    assert {pair["first"], pair["second"]} == {"cry/04.wav", "laugh<b>/05.wav"} and pair["kind"] == "identical"

    page = page_of(clips)
    assert "<bdi>My Clips</bdi>" in page and "1 of the pairs are in two different classes" in page
    assert "Guessing reaches 50 of 100" in page and "so that the vectors do tell these classes apart" in page
    assert "No tested clip has a copy in training" in page  # copies are on one side of each fold
    assert "cry/broken.wav" in page and "All of them can be heard here" in page
    assert run(clips, FOLDS) == 0  # again, from what is there
    assert "of 19 recordings" not in capsys.readouterr().err and page_of(clips) == page


def test_the_page_stands_alone_and_tells_nothing_of_the_machine(explored):
    clips = explored[0]
    page = page_of(clips)
    assert str(clips.parent) not in page and not re.search(r"(?:href|src)=\"(?!#|data:)", page)
    assert "laugh<b>" not in page and "laugh&lt;b&gt;" in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for kind in ("style", "script"):
        content = re.search(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"<[^>]* (style|on\w+)=", page)
    marks = re.findall(r'<a href="#(c\d+)" transform="translate\([^)]*\)"><use', page)
    assert len(marks) == CLIPS and all(page.count(f'id="{mark}"') == 1 for mark in marks)
    sounds = re.findall(r'src="data:audio/mpeg;base64,([^"]*)"', page)
    assert len(sounds) > CLIPS and all(base64.b64decode(sound)[:2] in (b"\xff\xf3", b"ID") for sound in sounds)


def test_a_small_page_leaves_players_out_and_says_so(explored):
    clips, small = explored[0], explored[0].parent / "small"
    cache = f"--data_dir={clips.parent / 'out' / 'cache'}"
    assert run(clips, FOLDS, "--page_mb=0.1", cache, f"--output={small}") == 0
    page = (small / "explore.html").read_text()
    assert len(page) < 1.3e5 and "the others are left out to keep this file small" in page
    assert 0 < page.count("<audio") < CLIPS


def test_clips_of_one_folder_get_everything_but_a_probe(tmp_path, capsys):
    clips = write_clips(tmp_path / "clips")
    shutil.rmtree(clips / "cry")
    assert run(clips) == 0
    assert "no probe: the recordings lie in one folder" in capsys.readouterr().err
    page, rows = page_of(clips), rows_of(tmp_path / "out" / "vectors.csv")
    assert "There is no answer: the recordings lie in one folder" in page and "What is taken for what" not in page
    assert len(rows) == CLIPS // 2 == page.count("<use href")
    assert {(row["label"], row["predicted"], row["probability"]) for row in rows} == {("", "", "")}


def test_other_options_and_corrected_folders_need_nothing_deleted(tmp_path, capsys):
    clips = write_clips(tmp_path / "My Clips")
    assert run(clips, FOLDS) == 0
    assert run(clips, "--folds=2") == 0
    (clips / "cry" / "00.wav").unlink()
    (clips / "cry" / "broken.wav").unlink()
    assert run(clips, "--folds=2") == 0
    assert "delete" not in capsys.readouterr().err
    page = page_of(clips)
    assert len(rows_of(clips.parent / "out" / "vectors.csv")) == CLIPS - 1 and "Left out" not in page
    assert not re.search(r"my_clips_[0-9a-f]{8}", page)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--map=umap", f"--map=umap needs a package that is not installed: {extras.command('umap')}, or leave it out"),
        ("--page_mb=0", "--page_mb=0 is no size"),
        (f"--output={__file__}/out", f"--output={__file__}/out: {__file__} is a file; give a folder"),
        (f"--data_dir={__file__}", "is a file; give a folder, it is made"),
        ("--folds=1", "--folds=1 makes no cross-validation"),
        ("--model=voc2vec-lx", "did you mean voc2vec-ls?"),
    ],
)
def test_bad_arguments_are_one_sentence_and_write_nothing(tmp_path, monkeypatch, capsys, argument, said):
    monkeypatch.setitem(sys.modules, "umap", None)
    clips = tmp_path / "clips"
    clips.mkdir()
    assert run(clips, argument) == 2
    assert said in capsys.readouterr().err and not (clips.parent / "out").exists()


def test_an_absent_folder_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "one.wav").write_bytes(b"RIFF")
    assert run(tmp_path / "one.wav") == 2
    assert "one.wav is one recording, and many are explored: give a folder" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    assert run(tmp_path) == 2
    assert f"--output={tmp_path.parent / 'out'} cannot be written: give a folder that can" in capsys.readouterr().err
    assert run(tmp_path / "nowhere") == 2
    assert f"there is no {tmp_path / 'nowhere'}: give a folder of recordings" in capsys.readouterr().err


def test_umap_is_asked_for_a_seeded_map(monkeypatch):
    mapping = importlib.import_module("voc2vec_jax.explore.mapping")
    asked = {}

    class Umap:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, x):
            return x[:, :2] * [10, -4]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Umap))
    x = np.random.default_rng(0).normal(size=(9, 3))
    found = mapping.flat(x, "umap", 7)
    assert asked == {"n_neighbors": 8, "random_state": 7, "n_jobs": 1}
    assert found.min(0).tolist() == [0, 0] and found.max(0).tolist() == [1, 1]
    assert found[:, 0].argmax() == x[:, 0].argmax() and found[:, 1].argmax() == x[:, 1].argmin()


@pytest.fixture(scope="module")
def browser():
    with browsers.started() as found:
        yield found


@pytest.mark.slow
@browsers.needed
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (768, "dark"), (1280, "light")])
def test_in_a_browser_the_mailed_page_fits_and_a_mark_plays(explored, browser, tmp_path, width, scheme):
    path = tmp_path / "mailed.html"
    path.write_bytes((explored[0].parent / "out" / "explore.html").read_bytes())
    tab, complaints = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(path.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    marks = tab.evaluate("""[...document.querySelectorAll('.map use')].map((each) => {
        const [own, all] = [each, each.closest('svg')].map((e) => e.getBoundingClientRect());
        return [(own.x + own.width / 2 - all.x) / all.width, (own.y + own.height / 2 - all.y) / all.height]; })""")
    assert np.ptp(marks, axis=0).min() > 0.8 and np.min(marks) > 0 and np.max(marks) < 1  # the whole of the map is seen
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor").startswith("rgb(255")
    assert light == (scheme == "light")
    colours = "new Set([...document.querySelectorAll('.marks use')].map((e) => getComputedStyle(e).fill)).size"
    assert tab.evaluate(colours) == 2  # one for each class
    mark = tab.locator(".map a").nth(3)
    mark.dispatch_event("click")
    player = tab.locator("#chosen audio")
    for _ in range(100):  # its policy lets in no condition to wait for
        if player.evaluate("(each) => each.currentTime") > 0:
            break
        tab.wait_for_timeout(100)
    assert player.evaluate("(each) => [each.currentTime > 0, each.error]") == [True, None]
    assert tab.inner_text("#chosen").startswith("cry/")
    tab.locator(".legend button").first.click()
    assert tab.locator(".marks").first.is_hidden() and tab.locator(".marks").last.is_visible()
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details .clip").count() == CLIPS == tab.locator("details .clip:visible").count()
    assert tab.locator("audio:visible").count() == 0 and complaints == []
    tab.close()
