"""Text from strangers is shown written out: nothing that it holds reaches a terminal."""

import ast
import os
import pathlib
import pickle
import re
import subprocess
import sys

import pytest

from voc2vec_jax import audio, datasets, errors, opening, printable
from voc2vec_jax.runs import logs

LIBRARY = pathlib.Path(printable.__file__).parent
TITLE = "a\x1b]0;title\x07b\u202egpj.wav\n\udcff"
SHOWN = "a\\x1b]0;title\\x07b\\u202egpj.wav\\n\\xff"


@pytest.mark.parametrize(
    "text, shown",
    [
        (TITLE, SHOWN),
        ("\x9b31m \x7f \u2028 \ud800 \U000e0041", "\\x9b31m \\x7f \\u2028 \\ud800 \\U000e0041"),
        ("\u200e\u2066\u061c\u200f", "\\u200e\\u2066\\u061c\\u200f"),
        ("Gelächter 笑い می\u200cخندد 👩\u200d🍼 \\x1b", "Gelächter 笑い می\u200cخندد 👩\u200d🍼 \\x1b"),
    ],
)
def test_what_a_terminal_obeys_is_written_out(text, shown):
    assert printable.line(text) == shown == printable.line(shown)
    assert printable.lines(text.replace("\n", "\n\t")) == shown.replace("\\n", "\n\t")


@pytest.mark.parametrize("kind", [errors.InputError, errors.RunError])
def test_errors_are_one_line(kind):
    fault = kind(TITLE)
    assert str(fault) == SHOWN == str(pickle.loads(pickle.dumps(fault)))
    assert str(audio.AudioError(TITLE, "is empty")) == f"{SHOWN}: is empty"
    assert str(opening.NoFileError(TITLE, "a pipe")).startswith(f"{SHOWN} is a pipe")


def test_what_programs_say_is_written_out(capsys):
    logs.say(TITLE)
    logs.warn(TITLE)
    printable.show(datasets.format_table([["name"], [TITLE]]))
    found = capsys.readouterr()
    assert found.err == f"{SHOWN}\nwarning: {SHOWN}\n"
    assert found.out.splitlines()[2] == SHOWN


def test_a_program_shows_names_of_files_written_out(tmp_path):
    folder = os.fsencode(tmp_path) + os.fsencode("/\x1b]0;x\x07\u202e\n\udcff")
    command = [sys.executable, "-m", "voc2vec_jax", "labels", folder, f"--output={tmp_path}/list.csv"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2 and b"\\x1b]0;x\\x07\\u202e\\n\\xff" in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr and done.stderr.count(b"\n") == 1


def test_nothing_is_printed_past_it():
    allowed = {"printable.py", "runs/program.py"}
    found = {
        f"{path.relative_to(LIBRARY)}:{node.lineno}"
        for path in LIBRARY.rglob("*.py")
        if str(path.relative_to(LIBRARY)) not in allowed and re.search(r"print\(|\.write\(", text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write", "sys.stderr.write")
    }
    assert not found
