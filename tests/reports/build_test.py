"""A report says what the runs say: numbers, averages, paired tests, and one sentence for what cannot be used."""

import itertools
import json
import re

import fake_runs
import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.ops import metrics
from voc2vec_jax.programs import report as report_program
from voc2vec_jax.reports import build, comparisons, details
from voc2vec_jax.reports import paper as report_paper
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text
from voc2vec_jax.runs import program


@pytest.fixture
def draws_nothing(monkeypatch):
    fake_runs.draw_nothing(monkeypatch)


def run_tool(*argv):
    return program.run(report_program.main, [str(word) for word in argv])


# --- reading runs


def test_runs_are_found_alone_and_in_grids_once_each_and_those_without_summary_are_named(tmp_path):
    a = fake_runs.write(tmp_path / "grid" / "vivae" / "hubert-ls")
    fake_runs.write(tmp_path / "grid" / "cnvve" / "voc2vec-ls", dataset="cnvve", title="CNVVE", system="voc2vec-ls")
    fake_runs.write(tmp_path / "grid" / "vivae" / "mine", system="mine")
    (tmp_path / "grid" / "vivae" / "wavlm" / "fold_00").mkdir(parents=True)
    runs, waiting, _ = report_runs.find([tmp_path / "grid", a / ".." / a.name, tmp_path / "grid" / "vivae"])
    assert [(run.dataset, run.name) for run in runs] == [
        ("cnvve", "voc2vec-ls"),
        ("vivae", "hubert-ls"),
        ("vivae", "mine"),
    ]
    assert waiting == [tmp_path / "grid" / "vivae" / "wavlm"]
    assert report_runs.find([a])[0][0].system == "hubert-ls"


def test_one_system_of_two_grids_is_told_apart_on_every_data_set(tmp_path):
    for grid, dataset in itertools.product(("one", "two"), ("vivae", "cnvve")):
        fake_runs.write(tmp_path / grid / dataset / "hubert-ls", dataset=dataset)
    fake_runs.write(tmp_path / "one" / "donateacry" / "hubert-ls", dataset="donateacry")
    fake_runs.write(tmp_path / "one" / "vivae" / "mine", system="mine")
    runs = report_runs.find([tmp_path / "one", tmp_path / "two"]).runs
    assert sorted(run.name for run in runs) == ["hubert-ls (one)"] * 3 + ["hubert-ls (two)"] * 2 + ["mine"]
    alone = report_runs.find([tmp_path / grid / "vivae" / "hubert-ls" for grid in ("one", "two")]).runs
    assert [run.name for run in alone] == ["hubert-ls (one/vivae/hubert-ls)", "hubert-ls (two/vivae/hubert-ls)"]


def test_a_system_under_two_protocols_is_told_apart_on_every_data_set(tmp_path):
    for place, dataset, protocol in (("a", "vivae", "strict"), ("b", "vivae", "paper"), ("c", "cnvve", "strict")):
        fake_runs.write(tmp_path / place, dataset=dataset, title=dataset, protocol=protocol)
    fake_runs.write(tmp_path / "d", title="vivae", system="mine")
    assert [(run.dataset, run.name) for run in report_runs.find([tmp_path]).runs] == [
        ("cnvve", "hubert-ls, strict"),
        ("vivae", "hubert-ls, paper"),
        ("vivae", "hubert-ls, strict"),
        ("vivae", "mine"),
    ]


def broken(**changes):
    return lambda folder: fake_runs.edit(folder, **changes)


def broken_fold(**changes):
    def change(folder):
        folds = json.loads((folder / "summary.json").read_text())["folds"]
        fold = {key: value for key, value in {**folds[0], **changes}.items() if value is not ...}
        fake_runs.edit(folder, folds=[fold, *folds[1:]])

    return change


def overwritten(name, text):
    return lambda folder: (folder / name).write_text(text)


HEADS = "fold,id,path,start_seconds,seconds,label,predicted,probability\n"
BAD = {
    "no summary": (lambda folder: (folder / "summary.json").unlink(), "holds no summary.json"),
    "half a file": (overwritten("summary.json", '{"dataset": "vi'), "summary.json: it is not JSON"),
    "a list": (overwritten("summary.json", "[]"), "summary.json: it is not a JSON object"),
    "no data set": (broken(dataset=None), "'dataset' is missing"),
    "no folds": (broken(folds=None), "'folds' is missing"),
    "planned": (broken(planned_folds="ten"), "'planned_folds' is not a int"),
    "labels twice": (broken(labels=["a", "a", "b"]), "'labels' is not a list of different names"),
    "more labels": (broken(labels=["a", "b", "c", "d"]), "fold 0: 'confusion' is not a table of counts of 4 by 4"),
    "no confusion": (broken_fold(confusion=...), "fold 0: 'confusion' is missing"),
    "score": (broken_fold(uar=float("nan")), "fold 0 has a score that is no number"),
    "share": (broken_fold(uar=1.5), "fold 0 has a score outside 0 to 1"),
    "score text": (broken_fold(uar="high"), "fold 0 is not as fine-tuning writes it"),
    "sizes": (broken_fold(test=["a"]), "fold 0: 'fold', 'test' and 'confusion' do not fit"),
    "twice": (broken_fold(fold=1), "a fold is there twice"),
    "no such column": (overwritten("predictions.csv", "fold,id\n0,a\n"), "the column 'path' is missing"),
    "number": (overwritten("predictions.csv", HEADS + "0,a,a,0,1,x,y,likely\n"), "predictions.csv: line 2: could not"),
    "infinite": (overwritten("predictions.csv", HEADS + "0,a,a,0,inf,x,y,1\n"), "line 2 holds a number that is not f"),
    "kind": (broken(kind="music"), "'kind' is none of classes, multilabel, regression"),
    "pooled": (
        broken(pooled={"uar": {"value": "high", "low": None, "high": None}}),
        "'pooled' holds no numbers for uar",
    ),
    "bound": (broken(pooled={"uar": {"value": 0.5, "low": 0.1, "high": None}}), "'pooled' lacks numbers for uar"),
    "short": (overwritten("predictions.csv", HEADS + "0,a\n"), "predictions.csv: line 2: could not convert"),
    "vectors": (overwritten("fold_00/embeddings.npz", "no"), "embeddings.npz: it cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2_and_leaves_no_page(case, tmp_path, capsys, draws_nothing):
    change, says = BAD[case]
    change(fake_runs.write(tmp_path / "run"))
    assert run_tool(tmp_path / "run", f"--output={tmp_path}/report.html") == errors.EXIT_INPUT
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and says in last
    assert not list(tmp_path.glob("report*"))


def test_bad_arguments_are_status_2(tmp_path, capsys, draws_nothing):
    folder = fake_runs.write(tmp_path / "run")
    for words, says in {
        (f"--output={tmp_path}/r.html",): "RUN is missing",
        (folder,): "--output is missing",
        (tmp_path / "none", f"--output={tmp_path}/r.html"): "none is not a folder",
        (folder, f"--output={tmp_path}/r.pdf"): "r.pdf is not the name of an .html file",
        (folder, f"--output={folder}/summary.json/r.html"): "summary.json is a file; give a folder",
        (folder, f"--output={tmp_path}/r.html", "--formats=png,gif"): "the format 'gif' is none of png, pdf, svg",
        (folder, f"--output={tmp_path}/r.html", "--audio=/none"): "--audio=/none is not a folder",
    }.items():
        assert run_tool(*words) == errors.EXIT_INPUT
        assert says in capsys.readouterr().err


def test_scores_and_marks_come_from_the_folds(tmp_path):
    run = report_runs.read(fake_runs.write(tmp_path / "run", folds=2))
    assert not run.complete and run.progress == "2 of 3"
    raw = json.loads((tmp_path / "run" / "summary.json").read_text())["folds"]
    assert run.summary.mean["uar"] == pytest.approx(np.mean([fold["uar"] for fold in raw]))
    assert run.confusion.sum() == sum(len(fold["test"]) for fold in raw)
    fake_runs.edit(tmp_path / "run", complete=True)
    assert not report_runs.read(tmp_path / "run").complete  # the folds decide
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('\n{"fold": 0, "loss": 1}\n[1]\n')
    assert {row["epoch"] for row in details.curves(run)} == {1, 2, 3}  # and the line cut short is no row
    fake_runs.edit(tmp_path / "run", folds=[])
    empty = report_runs.read(tmp_path / "run")
    assert empty.summary is None and empty.confusion.shape == (3, 3)


# --- tables


def rows_of(table):
    return [[cell.text for cell in row] for group in table.groups for row in group.rows]


def six(folder, system="voc2vec-ls", tasks=tuple(report_paper.TASKS), **options):
    for task in tasks:
        title = report_paper.TASKS[task]
        fake_runs.write(folder / task / system, dataset=task, title=title, system=system, seed=len(task), **options)


def test_table_iv_shows_our_number_the_papers_and_their_difference(tmp_path):
    run = report_runs.read(fake_runs.write(tmp_path / "run", system="voc2vec-ls"))
    ((name, pretraining, protocol, folds, ours, pooled, paper, difference, *_),) = rows_of(
        report_tables.table_iv([run])
    )
    assert (name, pretraining, protocol, folds) == ("voc2vec-ls", "LS960 + Voc125", "strict", "3 of 3")
    mean, std = run.summary.mean["uar"], run.summary.std["uar"]
    assert pooled == f"{np.trace(run.confusion) / run.confusion.sum():.3f}"  # of an earlier version: no interval
    assert ours == f"{mean:.3f}±{std:.3f}" and paper == "0.573±0.062"
    assert difference.replace("\N{MINUS SIGN}", "-") == f"{mean - 0.573:+.3f}"


def test_a_system_that_the_paper_lacks_has_dashes(tmp_path):
    run = report_runs.read(fake_runs.write(tmp_path / "run", system="mine"))
    ((_, pretraining, _, _, _, _, paper, difference, *_),) = rows_of(report_tables.table_iv([run]))
    assert pretraining == paper == difference == report_text.DASH


def test_the_best_complete_run_of_a_protocol_is_strong_and_an_incomplete_one_never(tmp_path):
    for system, skill, folds in (("a", 1.0, 3), ("b", 3.0, 3), ("c", 9.0, 2)):
        fake_runs.write(tmp_path / "vivae" / system, system=system, skill=skill, folds=folds)
    table = report_tables.table_iv(report_runs.find([tmp_path])[0])
    strong = {row[0].text: row[4].strong for row in table.groups[0].rows}
    assert strong == {"a": False, "b": True, "c \N{DAGGER}": False}


def test_table_iii_averages_six_tasks_and_otherwise_says_over_which(tmp_path):
    six(tmp_path)
    six(tmp_path, "wavlm", ("vivae", "cnvve"))
    six(tmp_path, "mine", ("vivae",))
    fake_runs.write(tmp_path / "own" / "voc2vec-ls", dataset="own", title="Own", system="voc2vec-ls", skill=9.0)
    runs = report_runs.find([tmp_path]).runs
    rows = {row[0]: row for row in rows_of(report_tables.table_iii(runs))}
    means = [run.summary.mean["uar"] for run in runs if run.system == "voc2vec-ls" and run.dataset != "own"]
    assert len(means) == 6
    assert rows["voc2vec-ls"][3:5] == ["all six", f"{np.mean(means):.3f}±{np.std(means):.3f}"]
    pooled = [run.pooled["uar"]["value"] for run in runs if run.system == "voc2vec-ls" and run.dataset != "own"]
    assert rows["voc2vec-ls"][5:7] == [f"{np.mean(pooled):.3f}±{np.std(pooled):.3f}", "0.661±0.206"]
    assert rows["wavlm"][3] == "2 of 6: CNVVE, VIVAE"
    assert rows["wavlm"][6] == f"{(0.976 + 0.230) / 2:.3f}±{(0.976 - 0.230) / 2:.3f}"  # the paper's on the same two
    assert rows["mine"][3] == "1 of 6: VIVAE" and "±" not in rows["mine"][4] and rows["mine"][6] == report_text.DASH


def test_without_a_task_of_the_paper_table_iii_says_so(tmp_path):
    run = report_runs.read(fake_runs.write(tmp_path / "run", dataset="own"))
    table = report_tables.table_iii([run])
    assert not table.groups and "None of the runs" in table.notes[0]


def test_pairs_are_the_paired_tests_of_the_same_folds(tmp_path):
    a, b = (
        report_runs.read(fake_runs.write(tmp_path / name, system=name, folds=6, planned=6, clips=60, seed=seed))
        for seed, name in enumerate(("a", "b"))
    )
    assert comparisons.refusal(a, b) is None
    got = comparisons.compare(a, b, "uar")
    values = [[fold.scores["uar"] for fold in run.folds] for run in (a, b)]
    assert got == metrics.paired(*values, train=50, test=10)
    table = comparisons.pairs([a, b])
    assert [row[0] for row in rows_of(table)] == ["UAR", "accuracy", "macro F1"]
    assert rows_of(table)[0][8] == f"{got.p_corrected:.4f}" and rows_of(table)[0][1:4] == ["a", "b", "6"]


def test_runs_on_other_folds_are_refused_by_name(tmp_path):
    a = report_runs.read(fake_runs.write(tmp_path / "a", system="a"))
    b = report_runs.read(fake_runs.write(tmp_path / "b", system="b", shuffle=1))
    one = report_runs.read(fake_runs.write(tmp_path / "one", system="one", folds=1))
    paper = report_runs.read(fake_runs.write(tmp_path / "paper", system="p", protocol="paper"))
    assert comparisons.refusal(a, b) == "they were tested on different clips in folds 0, 1, 2"
    assert comparisons.refusal(a, one) == "they have 1 fold in common, and a test needs two"
    assert comparisons.refusal(a, paper) == "one ran under protocol strict, the other under paper"
    table = comparisons.pairs([a, b])
    assert not table.groups
    assert "On VIVAE, a and b are not paired: they were tested on different clips in folds 0, 1, 2." in table.notes


def test_systems_are_tested_over_the_tasks_that_both_have(tmp_path):
    six(tmp_path, "a", skill=6.0)
    six(tmp_path, "b", skill=0.0)
    six(tmp_path, "c", tuple(report_paper.TASKS)[:3])
    six(tmp_path, "half", folds=2)
    runs = report_runs.find([tmp_path]).runs
    table = comparisons.systems(runs)
    assert [group.heading for group in table.groups] == [
        f"protocol strict, {title}" for title in ("UAR", "accuracy", "macro F1")
    ]
    rows = {tuple(row[k].text for k in (0, 1)): row for row in table.groups[0].rows}
    assert set(rows) == {("a", "b"), ("a", "c"), ("b", "c")}
    means = {name: np.array([run.summary.mean["uar"] for run in runs if run.name == name]) for name in ("a", "b")}
    best, worst = means["a"], means["b"]
    assert (best > worst).all()
    cells = [cell.text for cell in rows["a", "b"]]
    assert cells[2:4] == ["6", "6, 0"] and cells[4:6] == [f"{best.mean():.3f}", f"{worst.mean():.3f}"]
    assert cells[7] == "0.0312" and cells[8] == f"{3 / 32:.4f}"  # of three pairs the least counts three times
    assert rows["a", "c"][2].text == "3"
    assert any("none can be below 0.05" in note for note in table.notes)
    assert any("half \N{DAGGER} on VIVAE" in note for note in table.notes)


def test_too_few_data_sets_for_any_p_are_said_to_be_so(tmp_path):
    for system in ("a", "b"):
        six(tmp_path, system, ("vivae", "cnvve", "donateacry"))
    table = comparisons.systems(report_runs.find([tmp_path]).runs)
    assert any("at most 3 data sets: no p of this test can be below 0.25" in note for note in table.notes)
    alone = comparisons.systems(report_runs.find([tmp_path / "vivae"]).runs)
    assert not alone.groups and "there is no test over data sets" in alone.notes[0]


def test_runs_that_average_over_other_classes_are_not_paired(tmp_path):
    for system, averaged in (("a", "tested"), ("b", None)):  # None: of an earlier version
        fake_runs.write(tmp_path / "vivae" / system, system=system)
        fake_runs.edit(tmp_path / "vivae" / system, averaged_classes=averaged)
    one, other = runs = report_runs.find([tmp_path]).runs
    why = "one averages over the tested classes, the other over the occurring ones"
    assert comparisons.refusal(one, other) == why
    assert any("in the runs of an earlier version" in note for note in report_tables.table_iv(runs).notes)


def test_all_clips_come_from_the_summary_with_their_interval(tmp_path):
    folder = fake_runs.write(tmp_path / "run")
    pooled = {name: {"value": 0.5, "low": 0.4, "high": 0.625} for name in metrics.NAMES}
    fake_runs.edit(folder, pooled=pooled)
    (row,) = rows_of(report_tables.table_iv([report_runs.read(folder)]))
    assert row[5] == row[9] == row[13] == "0.500 [0.400, 0.625]"


@pytest.mark.parametrize(
    ("kind", "scores"),
    [("multilabel", {"map": 0.5, "auroc": 0.75}), ("regression", {"ccc": 0.5, "pearson": 0.6, "mae": 1.25})],
)
def test_other_kinds_of_tasks_have_a_table_of_their_own_scores(kind, scores, tmp_path, draws_nothing):
    for at, system in enumerate(("a", "b")):
        folder = fake_runs.write(tmp_path / "own" / system, system=system, dataset="own", title="Own", seed=at)
        folds = json.loads((folder / "summary.json").read_text())["folds"]
        folds = [{**fold, "confusion": None, **{name: value + at for name, value in scores.items()}} for fold in folds]
        pooled = {name: {"value": value, "low": 0.0, "high": 2.0} for name, value in scores.items()}
        fake_runs.edit(folder, kind=kind, folds=folds, pooled=pooled)
    runs = report_runs.find([tmp_path]).runs
    (own,) = report_tables.scores(runs)
    assert own.name == f"scores_{kind}"
    names = [row[0].text for row in own.groups[0].rows]
    for at, (name, value) in enumerate(scores.items()):
        cells = [row[3 + 2 * at] for row in own.groups[0].rows]
        assert [cell.text for cell in cells] == [f"{value:.3f}±0.000", f"{value + 1:.3f}±0.000"]
        better = "a" if name == "mae" else "b"  # the lower error, and else the higher score
        assert [cell.strong for cell in cells] == [one == better for one in names]
    written = build.write([tmp_path], tmp_path / "r.html")
    assert f"r_scores_{kind}.md" in {path.name for path in written.files}
    assert "confusion" not in " ".join(path.name for path in written.files)


FAULT = {"dataset": "vivae", "title": "VIVAE", "system": "wavlm", "protocol": "strict", "reason": "no such folder"}


def test_a_job_that_failed_has_a_row_of_dashes_and_its_reason(tmp_path, capsys, draws_nothing):
    fake_runs.write(tmp_path / "g" / "vivae" / "hubert-ls")
    other = {"dataset": "cnvve", "title": "CNVVE"}
    seeds = {f"cnvve/wavlm/seed_{seed}": other | {"seed": seed} for seed in (3, 7)}
    for folder, changes in {"vivae/wavlm": {}, **seeds}.items():
        (tmp_path / "g" / folder).mkdir(parents=True)
        (tmp_path / "g" / folder / "config.json").touch()
        (tmp_path / "g" / folder / "fault.json").write_text(json.dumps(FAULT | changes))
    found = report_runs.find([tmp_path / "g"])
    assert not found.waiting and {fault.dataset for fault in found.faults} == {"vivae", "cnvve"}
    table = report_tables.table_iv(found.runs, found.faults)
    assert [group.heading for group in table.groups] == ["VIVAE", "CNVVE"]
    failed = rows_of(table)[1]
    assert failed[:4] == ["wavlm", "LS960", "strict", "failed"] and set(failed[4:]) == {report_text.DASH}
    assert rows_of(table)[2][0] == "wavlm, seeds 3, 7" and len(rows_of(table)) == 3
    assert "wavlm on VIVAE failed: no such folder." in table.notes
    assert "wavlm failed on VIVAE." in report_tables.table_iii(found.runs, found.faults).notes
    assert run_tool(tmp_path / "g", f"--output={tmp_path}/r.html") == errors.EXIT_DONE
    assert "wavlm on VIVAE failed: no such folder." in capsys.readouterr().out
    assert "wavlm on VIVAE failed: no such folder." in (tmp_path / "r.html").read_text()


def test_a_run_that_failed_half_way_keeps_its_own_row(tmp_path):
    folder = fake_runs.write(tmp_path / "vivae" / "wavlm", system="wavlm", folds=2)
    (folder / "fault.json").write_text(json.dumps(FAULT))
    found = report_runs.find([tmp_path])
    table = report_tables.table_iv(found.runs, found.faults)
    assert len(rows_of(table)) == 1 and rows_of(table)[0][3] == "2 of 3"
    assert "wavlm on VIVAE failed: no such folder." in table.notes


def test_faults_that_cannot_be_read_or_are_all_there_is_are_one_sentence(tmp_path, capsys, draws_nothing):
    folder = fake_runs.write(tmp_path / "vivae" / "a")
    (folder / "fault.json").write_text(json.dumps({**FAULT, "reason": 3}))
    assert run_tool(tmp_path, f"--output={tmp_path}/r.html") == errors.EXIT_INPUT
    assert "fault.json: 'reason' is not a str" in capsys.readouterr().err
    (folder / "fault.json").write_text(json.dumps(FAULT))
    (folder / "summary.json").unlink()
    assert run_tool(tmp_path, f"--output={tmp_path}/r.html") == errors.EXIT_INPUT
    assert "holds no summary.json" in (said := capsys.readouterr().err) and "no such folder" in said


def test_holm_steps_down_and_keeps_the_order():
    assert comparisons.holm([0.04, 0.01, None, 0.03]) == [pytest.approx(0.06), pytest.approx(0.03), None, 0.06]
    assert comparisons.holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_tool_says_what_it_wrote_and_what_is_incomplete(tmp_path, capsys, draws_nothing):
    fake_runs.write(tmp_path / "g" / "vivae" / "a", system="a", folds=2)
    (tmp_path / "g" / "vivae" / "b").mkdir()
    (tmp_path / "g" / "vivae" / "b" / "config.json").touch()
    assert run_tool(tmp_path / "g", f"--output={tmp_path}/r.html", "--formats=svg") == errors.EXIT_DONE
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "incomplete: a on VIVAE: 2 of 3 folds are done."
    assert out[1] == "incomplete: vivae/b has begun and has no summary yet; it is left out."
    # two tables in two forms, four pictures, and the run's predictions
    assert re.fullmatch(rf"{tmp_path}/r.html: 1 run on 1 data set, \d\.\d MB, 9 files beside it", out[2])
    assert len(list((tmp_path / "r_figures").glob("*.svg"))) == 4
