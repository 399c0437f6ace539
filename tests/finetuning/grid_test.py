"""A grid goes on when jobs fail, says so, and tries them again; a set of few groups gets fewer folds; several seeds."""

import json
import pathlib

import miniatures
import numpy as np
import pytest

from voc2vec_jax import datasets, errors, finetune
from voc2vec_jax.finetuning import cross_validation, grid, jobs, tasks
from voc2vec_jax.programs import report as report_program
from voc2vec_jax.reports import details, page
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text
from voc2vec_jax.runs import configuration, program, signals

ROOT = pathlib.Path(__file__).parents[2]
SHORT = ("--config.folds=4", "--config.epochs=2", "--config.warmup_steps=2", "--config.peak_lr=1e-2")


def summary_of(workdir):
    return json.loads((workdir / "summary.json").read_text())


def run(dataset, data_dir, workdir, *more):
    """In this process; the status."""
    fixed = (f"--config={ROOT}/configs/finetune.py:{dataset}", f"--config.data_dir={data_dir}", f"--workdir={workdir}")
    return program.run(finetune.main, [*fixed, *SHORT, *more])


def features(names, folder, manual_dir, path):
    """Features of the user's own for every clip of some sets, which say the class but for noise."""
    ids, vectors, rng = [], [], np.random.default_rng(0)
    for name in names:
        found = datasets.prepare(name, data_dir=folder, manual_dir=manual_dir, workers=1, progress=False)
        ids += found.recordings[found.recording].tolist()
        vectors.append(2 * np.eye(16)[found.label] + rng.normal(0, 0.7, (len(found.label), 16)))
    np.savez(path, ids=np.array(ids), vectors=np.concatenate(vectors).astype(np.float32))
    return path


def report(folder, output):
    return program.run(report_program.main, [str(folder), f"--output={output}", "--formats=svg"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("asvp_esd_babies,vivae", ("asvp_esd_babies", "vivae")),
        pytest.param("tasks", tuple(tasks.PAPER_TASKS), marks=pytest.mark.slow),
    ],
)
def test_a_grid_goes_on_past_systems_and_sets_that_fail_and_tries_them_again(argument, names, tmp_path, capsys):
    downloads = miniatures.tasks(tmp_path / "downloads", 4)
    own = features(names, tmp_path / "elsewhere", downloads, tmp_path / "own.npz")
    (downloads / "VIVAE").rename(tmp_path / "VIVAE")
    (tmp_path / "broken").mkdir()
    more = (f"--config.systems=opensmile,{tmp_path / 'broken'}", f"--config.features={own}", "--config.leaks=false")
    given = (argument, tmp_path / "data", tmp_path / "run", *more, f"--config.manual_dir={downloads}")

    assert run(*given) == errors.EXIT_INPUT
    said = capsys.readouterr().err.splitlines()
    jobs_planned, failed = 2 * len(names), len(names) + 1
    last = said[-1]
    assert last.startswith(f"error: {failed} of {jobs_planned} jobs failed (") and "vivae, opensmile" in last
    assert len([line for line in said if line.startswith("error: [")]) == failed
    for name in names:
        assert "no model" in json.loads((tmp_path / "run" / name / "broken" / "fault.json").read_text())["reason"]
        if name != "vivae":
            assert summary_of(tmp_path / "run" / name / "opensmile")["complete"]
    fault = json.loads((tmp_path / "run" / "vivae" / "opensmile" / "fault.json").read_text())
    assert fault["of_input"] and (fault["dataset"], fault["system"], fault["title"]) == ("vivae", "opensmile", "VIVAE")

    # Few groups make fewer folds, which is said and recorded.
    babies = summary_of(tmp_path / "run" / "asvp_esd_babies" / "opensmile")
    assert (babies["asked_folds"], babies["planned_folds"], len(babies["folds"]), babies["groups"]) == (4, 3, 3, 3)
    assert "3 groups" in babies["fewer_folds"]
    assert any("3 folds and not 4, since the clips come from 3 groups" in line for line in said)
    assert "3 folds and not 4" in (tmp_path / "run" / "asvp_esd_babies" / "opensmile" / "summary.md").read_text()

    # The report shows the gaps.
    assert report(tmp_path / "run", tmp_path / "report.html") == errors.EXIT_DONE
    assert "opensmile on VIVAE failed: " in capsys.readouterr().out
    page, fourth = (tmp_path / "report.html").read_text(), (tmp_path / "report_table4.md").read_text()
    assert "broken on VIVAE failed" in page and "opensmile on VIVAE failed" in page
    assert fourth.count("| failed | ") == failed and "has 3 folds and not the number asked for" in fourth

    # What failed is tried again, what is done is left alone.
    (tmp_path / "VIVAE").rename(downloads / "VIVAE")
    assert run(*given) == errors.EXIT_INPUT
    assert f"error: {len(names)} of {jobs_planned} jobs failed" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run" / "vivae" / "opensmile" / "fault.json").exists()
    found = summary_of(tmp_path / "run" / "vivae" / "opensmile")
    assert found["complete"] and (found["planned_folds"], found["fewer_folds"]) == (4, "")


def planned(tmp_path, names):
    config = configuration.load(f"{ROOT}/configs/finetune.py:synthetic")
    return [
        jobs.CrossValidationJob("synthetic", name, name, "finetune", None, tmp_path / name, config) for name in names
    ]


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        ({}, errors.EXIT_DONE),
        ({"a": errors.InputError("of the input")}, errors.EXIT_INPUT),
        ({"a": errors.InputError("of the input"), "c": errors.RunError("of the run")}, errors.EXIT_FAULT),
        ({"b": ZeroDivisionError("nobody foresaw it")}, errors.EXIT_FAULT),
    ],
)
def test_the_status_tells_whose_fault_it_was(raised, status, tmp_path, monkeypatch, capsys):
    begun = []

    def cross_validate(job, stop):
        begun.append(job.title)
        if job.title in raised:
            raise raised[job.title]
        return True

    monkeypatch.setattr(cross_validation, "run", cross_validate)
    monkeypatch.setattr(jobs, "plan_jobs", lambda *given: planned(tmp_path, "abc"))
    config = configuration.load(f"{ROOT}/configs/finetune.py:synthetic")
    assert grid.run(config, tmp_path, signals.StopSignal()) == status
    assert begun == ["a", "b", "c"]
    said = capsys.readouterr().err
    assert all(str(fault) in said for fault in raised.values())
    monkeypatch.setattr(jobs, "plan_jobs", lambda *given: planned(tmp_path, list(raised)[:1]))
    if raised:  # the only job: its fault is the program's
        with pytest.raises(type(next(iter(raised.values())))):
            grid.run(config, tmp_path, signals.StopSignal())


def test_a_stop_while_a_job_fails_is_a_stop(tmp_path, monkeypatch):
    stop = signals.StopSignal()

    def cross_validate(job, stop):
        stop.requested = "SIGTERM"
        raise errors.RunError("the disk is full")

    monkeypatch.setattr(cross_validation, "run", cross_validate)
    monkeypatch.setattr(jobs, "plan_jobs", lambda *given: planned(tmp_path, "abc"))
    config = configuration.load(f"{ROOT}/configs/finetune.py:synthetic")
    assert grid.run(config, tmp_path, stop) == errors.EXIT_STOPPED


def test_a_misspelt_name_is_refused_before_any_work(tmp_path, capsys):
    assert run("vivae,cnve", tmp_path, tmp_path / "run", "--config.model=voc2vec") == errors.EXIT_INPUT
    assert "there is no data set 'cnve': did you mean cnvve?" in capsys.readouterr().err
    systems = "--config.systems=voc2vec,wav2vec-ls"
    assert run("vivae", tmp_path, tmp_path / "run", systems) == errors.EXIT_INPUT
    assert "did you mean wav2vec2-ls" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- several seeds


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """Two seeds of a small network, and what to run them again with."""
    folder = tmp_path_factory.mktemp("seeds")
    own = features(["vivae"], folder / "data", miniatures.tasks(folder / "downloads", 4), folder / "own.npz")
    more = (f"--config.features={own}", "--config.model=opensmile", "--config.leaks=false")
    assert run("vivae", folder / "data", folder / "run", *more, "--config.seeds=0,5") == errors.EXIT_DONE
    return folder, more


def test_each_seed_is_a_run_of_its_own_on_the_same_folds(seeded):
    folder, more = seeded
    assert run("vivae", folder / "data", folder / "alone", *more, "--config.seed=5") == errors.EXIT_DONE
    alone, first, fifth = (summary_of(folder / name) for name in ("alone", "run/seed_0", "run/seed_5"))
    assert fifth == alone != first
    assert [fold["test"] for fold in first["folds"]] == [fold["test"] for fold in fifth["folds"]]


def test_the_summary_of_all_seeds_has_their_mean_and_the_deviation_over_them(seeded):
    folder, _ = seeded
    both, each = summary_of(folder / "run"), [summary_of(folder / "run" / f"seed_{seed}") for seed in (0, 5)]
    assert both["complete"] and [one["seed"] for one in both["seeds"]] == [0, 5] and len(both["folds"]) == 8
    for name in ("uar", "accuracy", "f1_macro"):
        means = [one["mean"][name] for one in each]
        assert (
            both["mean"][name]
            == pytest.approx(np.mean(means))
            == pytest.approx(np.mean([fold[name] for fold in both["folds"]]))
        )
        assert both["std"][name] == pytest.approx(np.std(means))
    assert both["pooled"]["accuracy"]["value"] == pytest.approx(
        np.mean([one["pooled"]["accuracy"]["value"] for one in each])
    )
    assert both["pooled"]["accuracy"]["low"] < both["pooled"]["accuracy"]["high"]
    text = (folder / "run" / "summary.md").read_text()
    assert "2 seeds" in text and "mean over seeds and folds ± std over seeds" in text
    assert "\nLeaks were not checked: " in text and "\n| always the most frequent class | " in text


def test_the_report_takes_the_seeds_together(seeded, tmp_path):
    folder, _ = seeded
    (tmp_path / "run").symlink_to(folder / "run")  # also one level below what is searched
    for place in (folder / "run", tmp_path):
        (found,), waiting, _ = report_runs.find([place])
        assert not waiting
    both = summary_of(folder / "run")
    assert found.progress == "4 of 4, 2 seeds" and found.complete
    # Curves and clips are of the first seed, so that every clip is there once.
    assert details.curves(found) == details.curves(report_runs.find([folder / "run" / "seed_0"]).runs[0]) != []
    assert len(details.predictions(found)) == found.clips
    counts = [row[1].text for group in page.recall_table([found]).groups for row in group.rows]
    assert sum(map(int, counts)) == found.clips
    assert found.summary.mean == pytest.approx(both["mean"]) and found.summary.std == pytest.approx(both["std"])
    assert found.confusion.sum() == 2 * both["clips"]
    table = report_tables.table_iv([found])
    row = [cell.text for cell in table.groups[0].rows[0]]
    uar = both["pooled"]["uar"]
    assert row[3] == "4 of 4, 2 seeds" and row[4] == f"{both['mean']['uar']:.3f}±{both['std']['uar']:.3f}"
    assert row[5] == f"{uar['value']:.3f} [{uar['low']:.3f}, {uar['high']:.3f}]"
    assert any("deviation over the seeds' means" in note for note in table.notes) and report_text.DASH not in row[4]


def test_seeds_are_resumed_added_to_and_never_mixed(seeded, capsys, tmp_path):
    folder, more = seeded
    before = (folder / "run" / "seed_0" / "summary.json").stat().st_mtime_ns
    assert run("vivae", folder / "data", folder / "run", *more, "--config.seeds=0,5") == errors.EXIT_DONE
    assert capsys.readouterr().err.count("is complete") == 2
    assert (folder / "run" / "seed_0" / "summary.json").stat().st_mtime_ns == before
    wrong = {
        (folder / "run",): "holds runs of several seeds (seed_0): give --config.seeds",
        (folder / "run", "--config.seeds=7", "--config.batch_clips=4"): "batch_clips is 16 in seed_0 and 4 in seed_7",
        (folder / "run" / "seed_0", "--config.seeds=1"): "holds a run of one seed",
        (tmp_path, "--config.seeds=-1"): "-1 is not from 0 to 2**32 - 1",
    }
    for (place, *fields), says in wrong.items():
        assert run("vivae", folder / "data", place, *more, *fields) == errors.EXIT_INPUT
        assert says in capsys.readouterr().err
    assert not (folder / "run" / "seed_7" / "fold_00").exists()  # refused before any work
