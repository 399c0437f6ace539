"""What others published stands in columns of its own, with its source and why it does not compare."""

import fake_runs

from voc2vec_jax import errors
from voc2vec_jax.programs import report as report_program
from voc2vec_jax.reports import others as report_others
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text
from voc2vec_jax.runs import program

DASH = report_text.DASH


def runs_on(folder, *datasets, system="voc2vec-ls"):
    for dataset in datasets:
        fake_runs.write(folder / dataset / system, dataset=dataset, title=f"Set {dataset}", system=system)
    return report_runs.find([folder]).runs


def added(table):
    """The columns of others with the cells below them, by the group's heading."""
    columns = [f"{column.over} {column.title}" for column in table.columns]
    first = next((place for place, name in enumerate(columns) if name.startswith(OVER)), len(columns))
    rows = {group.heading: [cell.text for cell in row] for group in table.groups for row in group.rows}
    assert {len(row) for row in rows.values()} == {len(columns)}
    return columns[first:], {heading: row[first:] for heading, row in rows.items()}


OVER = tuple(source.name for source in report_others.SOURCES)


def test_a_data_set_has_its_numbers_in_every_row(tmp_path):
    runs = runs_on(tmp_path, "vivae", "cnvve")
    columns, rows = added(report_tables.table_iv(runs, others=True))
    assert columns == ["MATA accuracy", "MATA F1"]
    assert rows == {"Set vivae": ["0.751", "0.746"], "Set cnvve": [DASH, DASH]}
    assert added(report_tables.table_iv(runs)) == ([], {"Set vivae": [], "Set cnvve": []})


def test_without_a_number_there_is_no_column_and_what_could_not_be_had_is_named(tmp_path):
    table = report_tables.table_iv(runs_on(tmp_path, "cnvve"), others=True)
    assert added(table) == ([], {"Set cnvve": []})
    (note,) = (note for note in table.notes if "CLiC-it" in note)
    assert "its tables could not be read" in note and "Not to be compared directly: one split instead" in note


def test_a_system_has_its_later_average(tmp_path):
    runs_on(tmp_path, "vivae", system="mine")
    columns, rows = added(report_tables.table_iii(runs_on(tmp_path, "vivae", system="voc2vec-hubert-ls"), others=True))
    assert columns == ["README of voc2vec UAR", "README of voc2vec F1"]
    table = report_tables.table_iii(report_runs.find([tmp_path]).runs, others=True)
    cells = {row[0].text: [cell.text for cell in row[-2:]] for row in table.groups[0].rows}
    assert cells == {"mine": [DASH, DASH], "voc2vec-hubert-ls": ["0.696±0.189", "0.678±0.200"]}
    assert any(note.startswith("README of voc2vec: the table in the README") for note in table.notes)


def test_they_are_in_the_files_of_a_report_that_is_asked_for_them(tmp_path, monkeypatch):
    fake_runs.draw_nothing(monkeypatch)
    runs_on(tmp_path, "vivae")
    words = [str(tmp_path / "vivae"), f"--output={tmp_path}/report.html", "--others"]
    assert program.run(report_program.main, words) == errors.EXIT_DONE
    for name in ("report.html", "report_table4.md", "report_table4.tex"):
        text = (tmp_path / name).read_text()
        assert "MATA" in text and "0.746" in text, name
