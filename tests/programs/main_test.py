"""The program `voc2vec`: its commands are found, explain themselves, and say their version."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from voc2vec_jax import errors, programs
from voc2vec_jax.programs import main
from voc2vec_jax.runs import versions

ROOT = pathlib.Path(__file__).parents[2]


def run(capsys, *argv):
    """Exit status, standard output, standard error; `--help` of a command ends the process."""
    try:
        status = main.main(list(argv))
    except SystemExit as ended:
        status = ended.code
    return status, *capsys.readouterr()


def test_without_a_command_all_are_listed(capsys):
    for words in ((), ("--help",), ("-h",), ("help",)):
        status, out, err = run(capsys, *words)
        assert status == 0 and not err
        listed = re.findall(r"^  (\S+)  ", out, re.MULTILINE)
        assert listed == list(programs.COMMANDS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["train", "finetune", "embed"])
def test_a_stop_while_jax_is_imported_is_one_line(name, number, tmp_path):
    (tmp_path / "jax.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    given = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "voc2vec_jax", name, "clips", "--config=quickstart", "--workdir=run"]
    ended = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    said = f"stopped by {number.name}: run the same command again\n"
    assert (ended.returncode, ended.stderr) == (errors.EXIT_STOPPED, said)


def test_the_version_is_that_of_the_sources(capsys):
    for word in ("--version", "-V", "version"):
        status, out, _ = run(capsys, word)
        assert status == 0 and out == f"{versions.line()}\n"
    assert re.fullmatch(r"voc2vec_jax \d+\.\d+\.\d+ \(jax [\d.]+\S*, Python [\d.]+\)", versions.line())


@pytest.mark.parametrize("name", programs.COMMANDS)
def test_every_command_explains_itself_with_examples(name, capsys):
    status, out, err = run(capsys, name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: voc2vec {name}")
    about, flags = out.split("\nflags\n")
    assert re.search(rf"^\s*voc2vec {name}\b", about, re.MULTILINE), "an example"
    assert re.search(r"^  --help  +show this text$", flags, re.MULTILINE)
    module = programs.COMMANDS[name].load()
    for flag in getattr(module, "FLAGS", {}):
        assert re.search(rf"^  --{flag}\b", flags, re.MULTILINE), flag
    assert run(capsys, "help", name)[1] == out
    assert run(capsys, name, "--version")[1] == f"{versions.line()}\n"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("finetune", ("epochs=50", "model=", "lora_rank=0")),
        ("train", ("total_steps=400000", "model.encoder.width=768")),
    ],
)
def test_help_shows_every_field_with_its_value_and_meaning(name, fields, capsys):
    _, out, _ = run(capsys, name, "--help")
    rows = re.findall(r"^  --config\.(\S+=.*?)(?:\n {40,}|  +)(\S.*)$", out, re.MULTILINE)
    meanings = dict(rows)
    assert len(rows) == out.count("\n  --config.") > 50
    for field in fields:
        assert len(meanings[field]) > 5


def test_help_of_a_recipe_shows_its_own_values(capsys):
    _, out, _ = run(capsys, "train", "--config=quickstart", "--config.seed=5", "--help")
    assert "--config.total_steps=400 " in out and "--config.seed=5 " in out
    assert "fields of --config=quickstart" in out


@pytest.mark.parametrize("lines", [9999, 20])
def test_a_reader_that_has_what_it_wants_is_told_nothing(lines):
    """`voc2vec --help | head -n 1`, with more text than a pipe holds, and with text that is written at the end."""
    prints = f"[print('x' * 99) for k in range({lines})] and (time.sleep(0.3), print('end'))[:0]"
    code = f"import time; from voc2vec_jax.runs import program; program.run(lambda argv: {prints})"
    found = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{code}" | head -n 1'], capture_output=True, text=True, check=True
    )
    assert (found.stdout, found.stderr) == (f"{'x' * 99}\n", "")


@pytest.mark.parametrize("command", ("train", "embed", "doctor"))
def test_an_interpreter_without_what_is_needed_is_named(command):
    without = "import sys; sys.modules['jax'] = sys.modules['ml_collections'] = sys.modules['pyarrow'] = None"
    code = f"{without}\nimport importlib.util as u; found = u.find_spec\n"
    code += "u.find_spec = lambda name, *rest: None if name == 'jax' else found(name, *rest)\n"
    code += f"from voc2vec_jax.programs import main; sys.argv[1:] = ['{command}']; main.command()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == errors.EXIT_INPUT and not done.stdout
    assert re.fullmatch(
        rf"error: {re.escape(sys.executable)} has no module \w+; install the package with all .*\n", done.stderr
    )
