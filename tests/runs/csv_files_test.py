"""No text of a csv file is a formula, and what is read is what was written."""

import csv
import io

import pytest

from voc2vec_jax.runs import csv_files

TEXTS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "'=1", "''-x", "-", "-1;=1"]
PLAIN = ["", "a=b", "'", "'tis", "-1", "+1.5e-3", "-.5", "-inf", "12", " =1", "--", "a\nb", 'a "b", c']


def written(rows):
    text = io.StringIO()
    csv_files.Writer(text).writerows(rows)
    return text.getvalue()


def test_formulas_become_text_and_come_back():
    text = written([TEXTS])
    assert [cell[0] for cell in next(csv.reader(io.StringIO(text, newline="")))] == ["'"] * len(TEXTS)
    assert list(csv_files.Reader(io.StringIO(text, newline=""))) == [TEXTS]


@pytest.mark.parametrize("cell", PLAIN)
def test_other_text_and_numbers_stay(cell):
    plain = io.StringIO()
    csv.writer(plain).writerow([cell, -0.5, None])
    if cell != "--":
        assert written([[cell, -0.5, None]]) == plain.getvalue().replace("\r\n", "\n")
    assert next(csv_files.Reader(io.StringIO(written([[cell, -0.5, None]]), newline="")))[0] == cell


def test_rows_by_name():
    found = csv_files.DictReader(io.StringIO(written([["id", "+step"], ["=a", 1]]), newline=""), strict=True)
    assert list(found) == [{"id": "=a", "+step": "1"}] and found.line_num == 2
