"""A report begins with what was tested, how well beside chance, and whether to believe it; what is empty is absent."""

import json
import re

import fake_runs
import html_pages
import numpy as np
import pytest

from voc2vec_jax.ops import metrics
from voc2vec_jax.reports import build, cards
from voc2vec_jax.reports import paper as report_paper
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import text as report_text

LEAKS = {"clips": 30, "identical": 12, "near_identical": 6, "overlapping": 2, "same_group": 0, "unknown_group": 10}
BADGE = "20 of 30 tested clips have a near copy in training: this score measures memory"


@pytest.fixture(autouse=True)
def draws_nothing(monkeypatch):
    fake_runs.draw_nothing(monkeypatch)


def leaky(folder, **options):
    fake_runs.write(folder, **options)
    pooled = {name: {"value": 0.6, "low": 0.5, "high": 0.7} for name in metrics.NAMES}
    fake_runs.edit(folder, leaks={"tested": LEAKS}, groups=14, hours=0.5, pooled=pooled)
    return folder


def card_of(folder):
    return cards.card(report_runs.find([folder]).runs)


def test_the_card_tells_data_model_protocol_and_the_score_beside_chance(tmp_path):
    card = card_of(leaky(tmp_path / "run"))
    assert dict(card.facts) == {
        "clips": "30, 30 minutes",
        "classes": "3: anger, fear, pain",
        "speakers": "4 speakers or groups; not known for 10 clips",
        "model": "models/hubert-ls",
        "protocol": "strict: no known speaker on both sides, the epoch chosen on clips held out of training",
    }
    (run,) = card.runs
    assert card.columns == ("chance", "majority")
    assert [(row.title, row.value, row.interval) for row in run.rows] == [
        (title, "0.600", "0.500 to 0.700") for title in ("UAR", "accuracy", "macro F1")
    ]
    # Ten clips of each of three classes: F1 of one answer is 2 / 4 in one class and 0 in the others.
    assert [row.baselines for row in run.rows] == [("0.333", "0.333"), ("0.333", "0.333"), ("0.333", "0.167")]
    assert run.gauge[:4] == pytest.approx((60, 50, 70, 100 / 3))


def test_nothing_good_is_said_of_a_leak_and_chance_is_called_chance(tmp_path):
    folder = leaky(tmp_path / "run")
    assert card_of(folder).runs[0].verdict == ""
    fake_runs.edit(folder, leaks={"tested": {**LEAKS, "identical": 0, "near_identical": 0, "overlapping": 0}})
    assert card_of(folder).runs[0].verdict == "The 95 % interval of UAR lies above chance."
    low = {name: {"value": 0.4, "low": 0.3, "high": 0.5} for name in metrics.NAMES}
    fake_runs.edit(folder, pooled=low)
    assert "includes chance: nothing shows that the sounds were told apart" in card_of(folder).runs[0].verdict


def test_a_run_without_a_fold_or_of_an_earlier_version_has_a_card_of_what_is_known(tmp_path):
    folder = fake_runs.write(tmp_path / "run")
    assert "speakers" not in dict(card_of(folder).facts) and card_of(folder).runs[0].verdict == ""
    fake_runs.edit(folder, folds=[])
    card = card_of(folder)
    assert card.columns == () and card.runs[0].rows == () and card.runs[0].about == "0 of 3 folds"
    assert "No fold is done." in build.write([folder], tmp_path / "r.html").page.read_text()


def test_baselines_of_other_kinds_come_from_the_summary_and_are_checked(tmp_path):
    folder = fake_runs.write(tmp_path / "run", dataset="own")
    folds = json.loads((folder / "summary.json").read_text())["folds"]
    folds = [{**fold, "confusion": None, "map": 0.5, "auroc": 0.6} for fold in folds]
    pooled = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in ("map", "auroc")}
    fake_runs.edit(folder, kind="multilabel", folds=folds, pooled=pooled)
    assert card_of(folder).columns == () and card_of(folder).runs[0].gauge.chance is None
    fake_runs.edit(folder, baselines={"constant": {"map": 0.25, "auroc": 0.5}})
    assert card_of(folder).columns == ("constant",) and card_of(folder).runs[0].gauge.chance == 25
    for wrong in ({"constant": {"map": "high", "auroc": 0.5}}, {"luck": {"map": 0.1, "auroc": 0.5}}, {"constant": 1}):
        fake_runs.edit(folder, baselines=wrong)
        with pytest.raises(Exception, match="'baselines' holds no scores for"):
            report_runs.read(folder)


def test_the_badge_stands_first_on_the_page_and_in_every_table_and_every_picture_of_a_score(tmp_path, monkeypatch):
    leaky(tmp_path / "runs" / "a", dataset="own", title="Own", system="a")
    leaky(tmp_path / "runs" / "b", dataset="own", title="Own", system="b", seed=1)
    sheets = fake_runs.collect_sheets(monkeypatch)
    found = build.write([tmp_path / "runs"], tmp_path / "r.html")
    text = found.page.read_text()
    assert text.index(f'class="badge leak">{BADGE}.') < text.index("<dl>") < text.index("<nav")
    tables = [path for path in found.files if path.suffix in (".md", ".tex")]
    assert {path.stem for path in tables} == {"r_scores", "r_pairs"}
    for path in tables:
        words = path.read_text()
        assert BADGE in words and re.search("a (‡|.textdaggerdbl)", words), path.name
    assert text.count(f'class="note alarm">\N{DOUBLE DAGGER} Own: {BADGE}.') == 3  # scores, pairs, recalls
    written = [
        " ".join(item.get_text() for item in sheet.findobj(lambda it: hasattr(it, "get_text"))) for sheet in sheets
    ]
    assert len(written) == 6 and all(
        "a \N{DOUBLE DAGGER}" in words or "b \N{DOUBLE DAGGER}" in words for words in written
    )
    assert sum(BADGE.partition(":")[0] in words for words in written) == 5  # all but the map, which shows no score


def test_only_runs_that_leak_are_marked_and_a_badge_of_all_stands_on_the_card_once(tmp_path):
    leaky(tmp_path / "own" / "a", dataset="own", system="a")
    leaky(tmp_path / "own" / "b", dataset="own", system="b", seed=1)
    assert BADGE in [badge.text for badge in card_of(tmp_path).badges]
    fake_runs.edit(
        tmp_path / "own" / "b", leaks={"tested": {**LEAKS, "identical": 0, "near_identical": 0, "overlapping": 0}}
    )
    card = card_of(tmp_path)
    assert BADGE not in [badge.text for badge in card.badges]
    assert [[badge.kind for badge in run.badges] for run in card.runs] == [["leak"], ["clear"]]
    assert [run.name for run in card.runs] == ["a \N{DOUBLE DAGGER}", "b"]


def test_what_belongs_to_the_six_tasks_is_absent_without_them_and_so_are_empty_files(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "draw", lambda *words: [])
    fake_runs.write(tmp_path / "own" / "a", dataset="own", title="Own", system="a")
    found = build.write([tmp_path / "own"], tmp_path / "one" / "r.html")
    page = html_pages.Page(found.page.read_text())
    assert {attributes["id"] for tag, attributes in page.tags if tag == "section" and "id" in attributes} == {
        "scores",
        "set0",
    }
    assert {path.name for path in found.files if path.suffix == ".tex"} == {"r_scores.tex"}
    assert not re.search("Table I|paper|pre-training|paired", page.shown())
    fake_runs.write(tmp_path / "own" / "b", dataset="own", title="Own", system="b", shuffle=1)
    refused = build.write([tmp_path / "own"], tmp_path / "refused" / "r.html")  # other folds: a note and no table
    assert "a and b are not paired" in html_pages.Page(refused.page.read_text()).shown()
    assert {path.name for path in refused.files if path.suffix == ".tex"} == {"r_scores.tex"}
    for task in report_paper.TASKS:
        for at, system in enumerate(("a", "b")):
            fake_runs.write(tmp_path / "six" / task / system, dataset=task, system=system, seed=at)
    found = build.write([tmp_path / "six", tmp_path / "own"], tmp_path / "two" / "r.html")
    names = {path.stem for path in found.files if path.suffix == ".tex"}
    assert names == {"r_table3", "r_table4", "r_scores", "r_systems", "r_pairs"}


def test_no_path_of_the_machine_is_in_the_page_or_in_what_goes_with_it(tmp_path):
    where = tmp_path / "home of" / "runs"
    leaky(where / "own" / "a", dataset="own", system="a", audio_root=fake_runs.recordings(tmp_path / "audio"))
    fake_runs.edit(where / "own" / "a", model=f"{where}/models/best one")
    config = {"model": f"{tmp_path}/models/best", "data": "clips", "deep": [f"{tmp_path}/x"], "folds": 3}
    (where / "own" / "a" / "config.json").write_text(json.dumps(config))
    (where / "own" / "b").mkdir()
    (where / "own" / "b" / "config.json").touch()
    fault = {
        "dataset": "own",
        "title": "Own",
        "system": "c",
        "protocol": "strict",
        "reason": f"{tmp_path}/z.wav is bad",
    }
    (where / "own" / "c").mkdir()
    (where / "own" / "c" / "fault.json").write_text(json.dumps(fault))
    found = build.write([where], tmp_path / "out" / "r.html", formats=["png", "svg"])
    assert "z.wav is bad" in found.page.read_text() and "best one" in found.page.read_text()
    for path in found.files:
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content and b"home of" not in content, path.name
    (written,) = (json.loads(path.read_bytes()) for path in found.files if path.name == "config.json")
    assert written == {"model": "best", "data": "clips", "deep": ["x"], "folds": 3}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/me/runs/quick", "quick"),
        ("cannot read '/data/a b/x.wav': no", "cannot read 'a b/x.wav': no"),
        ("../../mine/x/y.wav is bad", "y.wav is bad"),
        ("~/runs/y", "y"),
        ("--config.data=/none/a", "--config.data=a"),
        (r"C:\Users\me\x.wav", "x.wav"),
        ("runs/quick", "runs/quick"),
        ("facebook/wav2vec2-base", "facebook/wav2vec2-base"),
        ("https://a.b/c/d", "https://a.b/c/d"),
        ("and/or, 3 / 4", "and/or, 3 / 4"),
    ],
)
def test_folders_of_a_machine_are_left_out_of_a_text_and_nothing_else(text, left):
    assert report_text.without_folders(text) == left


def test_two_data_sets_of_one_title_have_files_of_their_own(tmp_path):
    for dataset in ("clips_1", "clips_2"):
        fake_runs.write(tmp_path / dataset / "a", dataset=dataset, title="clips", system="a")
    found = build.write([tmp_path], tmp_path / "r.html", formats=["png"])
    names = [path.relative_to(tmp_path).as_posix() for path in found.files]
    assert len(set(names)) == len(names) and "clips_1" not in "".join(names)
    assert {"r_figures/recall_clips.png", "r_figures/recall_clips-2.png"} <= set(names)
    assert np.unique([name.split("/")[1] for name in names if name.startswith("r_runs/")]).size == 2
