"""The command line says what is wrong in one sentence, with the exit status that a script can rely on."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import ml_collections
import pytest
from ml_collections import config_dict

from voc2vec_jax import errors
from voc2vec_jax.runs import cli, configuration, program, signals

CONFIG_FILE = """
    import ml_collections
    from ml_collections import config_dict

    def get_config(arg=None):
        if arg not in (None, "ls"):
            raise ValueError("only ls is known")
        config = ml_collections.ConfigDict()
        config.seed = 0
        config.sets = ("a", "b")
        config.source = arg or ""
        config.stop_on_collapse = False
        config.clip = config_dict.placeholder(float)
        config.note = None
        config.optimizer = ml_collections.ConfigDict({"lr": 5e-4, "betas": (0.9, 0.98), "warmup": {"share": 0.08}})
        config.bucket_samples = [40000, 160000]
        config.conv = ((512, 10, 5), (512, 3, 2))
        return config
"""
FLAGS = {
    "config": cli.Flag("the recipe", kind=cli.CONFIG, required=True),
    "workdir": cli.Flag("folder of the run", required=True),
    "steps": cli.Flag("how many", default=3, kind=int),
    "to": cli.Flag("format", default="hf", choices=("jax", "hf")),
}


@pytest.fixture
def recipe(tmp_path):
    return write(tmp_path / "recipe.py", CONFIG_FILE)


def write(path, text):
    path.write_text(textwrap.dedent(text))
    return str(path)


def parse(*argv, flags=FLAGS, **options):
    return cli.parse(argv, flags=flags, program="voc2vec train", **options)


def refused(*argv, **options):
    with pytest.raises(errors.InputError) as caught:
        parse(*argv, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_both_spellings_mean_the_same(recipe):
    one = parse(f"--config={recipe}", "--workdir=r", "--steps=4", "--config.seed=7", "--config.stop_on_collapse")
    two = parse(
        "--config.seed", "7", "--config", recipe, "--workdir", "r", "--config.stop_on_collapse", "true", "--steps", "4"
    )
    for arguments in (one, two):
        assert (arguments.workdir, arguments.steps, arguments.to, arguments.debug) == ("r", 4, "hf", False)
        assert (arguments.config.seed, arguments.config.stop_on_collapse) == (7, True)
        assert arguments.config_source == recipe
        assert arguments.overrides == {"seed": "7", "stop_on_collapse": "true"}


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("seed", "-3", -3),
        ("optimizer.lr", "1", 1.0),
        ("optimizer.warmup.share", "1e-2", 0.01),
        ("optimizer.betas", "0.8,1", (0.8, 1.0)),
        ("sets", "human_voice,donateacry", ("human_voice", "donateacry")),
        ("sets", "(x, y,)", ("x", "y")),
        ("sets", "", ()),
        ("bucket_samples", "[4_000,8000]", [4000, 8000]),
        ("stop_on_collapse", "TRUE", True),
        ("clip", "0.5", 0.5),
        ("clip", "none", None),
        ("note", "a=b,c", "a=b,c"),
        ("source", "none", "none"),
        ("source", "__import__('os').abort()", "__import__('os').abort()"),
    ],
)  # fmt: skip
def test_an_override_takes_the_type_of_its_field(recipe, field, text, value):
    config = parse(f"--config={recipe}", "--workdir=r", f"--config.{field}={text}").config
    found = configuration.find(config, field, "")[1]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("field", "text", "part"),
    [
        ("seed", "1.5", "--config.seed=1.5 is not an int"),
        ("seed", "none", "--config.seed=none is not an int"),
        ("seed", "2**3", "--config.seed=2**3 is not an int"),
        ("optimizer.lr", "fast", "--config.optimizer.lr=fast is not a float"),
        ("optimizer.lr", "nan", "--config.optimizer.lr=nan is not a number"),
        ("optimizer.betas", "0.9,x", "--config.optimizer.betas=x is not a float"),
        ("clip", "much", "--config.clip=much is not a float"),
        ("stop_on_collapse", "yes", "--config.stop_on_collapse=yes is not a bool: give true or false"),
        ("optimizer", "adam", "--config.optimizer is a group of fields: set one of betas, lr, warmup"),
        ("conv", "1,2", "only the configuration file can set"),
    ],
)
def test_a_value_of_another_type_is_named_with_the_type_expected(recipe, field, text, part):
    assert part in refused(f"--config={recipe}", "--workdir=r", f"--config.{field}={text}")


@pytest.mark.parametrize(
    ("given", "suggested"),
    [
        ("--config.sed=1", "--config.seed?"),
        ("--config.optimiser.lr=1", "--config.optimizer.lr?"),
        ("--config.optimizer.warmup.shere=1", "--config.optimizer.warmup.share?"),
        ("--config.lr=1", "--config.optimizer.lr?"),
        ("--config.seed.x=1", "--config.seed?"),
        ("--wrkdir=x", "--workdir?"),
        ("--to=jaxx", "did you mean jax?"),
        ("--confg.seed=1", "--config?"),
        ("--config.zzzz=1", "--help lists the fields"),
        ("--zzzz", "the flags are --config, --workdir"),
    ],
)
def test_a_misspelt_flag_or_field_is_named_with_the_nearest(recipe, given, suggested):
    sentence = refused(f"--config={recipe}", "--workdir=r", given)
    assert given.split("=")[0].split(".")[0] in sentence
    assert suggested in sentence


def test_what_is_missing_is_shown_with_the_usage_line(recipe):
    usage = "usage: voc2vec train --config=RECIPE[:ARG] [--config.FIELD=VALUE ...] --workdir=TEXT [--FLAG=VALUE ...]"
    assert refused(f"--config={recipe}").startswith(f"--workdir is missing; {usage}")
    assert "--config is missing" in refused("--workdir=r")
    assert "--workdir needs a value" in refused("--workdir")
    assert "--workdir needs a value" in refused("--workdir", f"--config={recipe}")
    assert "--steps=many is not an int" in refused("--steps=many")
    assert "flags have two dashes: -workdir=r is none; did you mean --workdir?" in refused("-workdir=r")
    assert "add --config=RECIPE" in refused("--config.seed=1")
    assert "unexpected word 'r'" in refused(f"--config={recipe}", "--workdir=r", "r")


def test_positional_words_are_counted():
    words = cli.Positional("SET", "what to prepare", least=1, most=2)
    flags = {"data_dir": cli.Flag("where", default="data")}
    arguments = parse("a", "--data_dir", "d", "b", flags=flags, positional=words)
    assert (arguments.words, arguments.data_dir) == (("a", "b"), "d")
    assert "SET is missing; usage: voc2vec train SET... [--FLAG=VALUE ...]" in refused(flags=flags, positional=words)
    assert "unexpected word 'c'" in refused("a", "b", "c", flags=flags, positional=words)


@pytest.mark.parametrize("text", ["-3", "-1e-3", "-r"])
def test_a_value_may_begin_with_a_dash(recipe, text):
    assert parse("--config", recipe, "--workdir", text).workdir == text
    assert parse("--config", recipe, f"--workdir={text}").workdir == text


def test_flags_are_not_abbreviated_and_the_last_one_wins(recipe):
    assert "there is no flag --work; did you mean --workdir?" in refused(f"--config={recipe}", "--work=r")
    assert "there is no field --config.see; did you mean" in refused(
        f"--config={recipe}", "--workdir=r", "--config.see=1"
    )
    assert "there is no flag --wrkdir" in refused(f"--config={recipe}", "--wrkdir=a b")
    given = (f"--config={recipe}x", "--workdir=a", "--config.seed=1", "--config", recipe, "--workdir", "b c")
    arguments = parse(*given, "--config.seed", "-2", "--config.note=", "--debug", "--debug=false")
    assert (arguments.workdir, arguments.config.seed, arguments.config.note) == ("b c", -2, "")
    assert arguments.debug is False and arguments.config_source == recipe


def test_a_bool_takes_no_word_for_its_value(recipe):
    words = cli.Positional("FILE", "100 % of them")
    flags = {"fast": cli.Flag("50% less", default=False, kind=bool), "config": FLAGS["config"]}
    given = ("--fast", "a", "--config", recipe, "--config.stop_on_collapse", "-", "--debug", "FALSE", "b")
    arguments = parse(*given, flags=flags, positional=words)
    assert arguments.words == ("a", "-", "b")
    assert (arguments.fast, arguments.config.stop_on_collapse, arguments.debug) == (True, True, False)


def test_the_argument_of_a_configuration(recipe):
    assert parse(f"--config={recipe}:ls", "--workdir=r").config.source == "ls"
    assert "refuses the argument 'xx': only ls is known" in refused(f"--config={recipe}:xx", "--workdir=r")


def test_the_argument_may_hold_colons_and_slashes(tmp_path):
    path = write(
        tmp_path / "c.py", "import ml_collections\ndef get_config(arg): return ml_collections.ConfigDict({'x': arg})"
    )
    assert configuration.load(f"{path}:ls=/a/b.py:c").x == "ls=/a/b.py:c"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x = 1", "does not define get_config(arg=None)"),
        ("def get_config():\n  return 3", "get_config returned a int, no ConfigDict"),
        ("x = 1\ndef get_config(:", "is not Python at line 2"),
        ("\nimport no_such_module", "does not load at line 2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import voc2vec_jax.errors as e\ndef get_config(arg):\n  raise e.InputError('no such set')", "no such set"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path, text, part):
    path = write(tmp_path / "bad.py", text)
    sentence = refused(f"--config={path}", "--workdir=r")
    assert path in sentence and part in sentence


def test_a_missing_configuration_suggests_its_neighbour(recipe):
    assert f"did you mean {recipe}?" in refused(f"--config={recipe.replace('recipe', 'recipes')}", "--workdir=r")
    assert "there is no file no/such.py (nor a folder no)" in refused("--config=no/such.py:ls", "--workdir=r")


def test_a_file_without_argument_refuses_one(tmp_path):
    path = write(tmp_path / "c.py", "import ml_collections\ndef get_config(): return ml_collections.ConfigDict()")
    assert "takes no argument, so 'ls' must go" in refused(f"--config={path}:ls", "--workdir=r")


def test_help_prints_flags_and_fields_and_leaves_with_0(recipe, capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help", f"--config={recipe}", "--config.seed=5")
    assert caught.value.code == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("usage: voc2vec train --config=RECIPE[:ARG]")
    for line in ("--steps=INT how many (default 3)", "--config.seed=5", "--config.optimizer.warmup.share=0.08"):
        assert line in lines
    assert "--config.sets=a,b" in lines and "--config.clip=none" in lines
    with pytest.raises(SystemExit):
        parse("-h", flags={**FLAGS, "share": cli.Flag("so many %")}, positional=cli.Positional("SET", "of 100 %(x)s"))
    text = capsys.readouterr().out
    assert "so many %\n" in text and "of 100 %(x)s\n" in text


def test_a_configuration_is_locked_and_becomes_plain_dicts(recipe):
    config = parse(f"--config={recipe}", "--workdir=r").config
    with pytest.raises(AttributeError):
        config.sed = 1
    plain = configuration.as_dict(config)
    assert plain["optimizer"] == {"lr": 5e-4, "betas": (0.9, 0.98), "warmup": {"share": 0.08}}
    assert plain["clip"] is None
    required = ml_collections.ConfigDict({"x": 1, "model": config_dict.required_placeholder(str)})
    with pytest.raises(errors.InputError, match="is not set: give --config.model"):
        configuration.as_dict(required)
    configuration.override(required, "model", "base")
    assert configuration.as_dict(required) == {"x": 1, "model": "base"}


def fail_with(error):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "start"),
    [
        (errors.InputError("the set x is not there"), 2, "error: the set x is not there\n"),
        (errors.RunError("the disk is full"), 1, "error: the disk is full\n"),
        (KeyError("x"), 1, "error: KeyError at cli_test.py:"),
        (ValueError("first\nsecond"), 1, "error: ValueError at cli_test.py:"),
        (KeyboardInterrupt(), 75, "stopped by SIGINT: run the same command again\n"),
        (signals.Interrupted(), 1, "error: interrupted twice"),
    ],
)
def test_every_fault_is_one_line_and_a_status(error, status, start, capsys):
    assert program.run(fail_with(error), []) == status
    said = capsys.readouterr().err
    assert said.startswith(start) and said.count("\n") == 1
    assert "Traceback" not in said and "second" not in said


def test_debug_shows_the_traceback_and_keeps_the_status(capsys):
    assert program.run(fail_with(errors.InputError("no")), ["--debug"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and "in main" in said and said.endswith("error: no\n")


def test_the_status_of_main_is_the_status():
    assert program.run(lambda argv: None, []) == 0
    assert program.run(lambda argv: 75, []) == 75
    seen = []
    program.run(seen.append, ["--a", "b"])
    assert seen == [["--a", "b"]]


def test_the_first_signal_asks_and_the_second_interrupt_insists(capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with signals.StopSignal() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        with pytest.raises(signals.Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert capfd.readouterr().err == "\nSIGTERM: leaving after this step with a checkpoint\n"


PROGRAM = """
    import sys, time
    from voc2vec_jax.runs import program, signals

    def main(argv):
        print("started", flush=True)
        if "loop" in argv:
            with signals.StopSignal() as stop:
                while stop.requested is None:
                    time.sleep(0.01)
            print("saved after", stop.requested)
            return 75
        time.sleep(60)

    sys.exit(program.run(main))
"""


@pytest.mark.parametrize("place", ["before", "loop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_or_in_the_loop_leaves_with_75(place, number):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM), place]
    root = pathlib.Path(__file__).parents[2]
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores SIGINT
    try:  # and its children would too; a handler is reset where a program starts
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert process.stdout.readline() == "started\n"
    time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 75
    assert "Traceback" not in err
    assert out == (f"saved after {number.name}\n" if place == "loop" else "")


def test_a_default_is_one_of_the_choices():
    assert cli.Flag("how", default="a", choices=("a", "b")).default == "a"
    with pytest.raises(ValueError, match="the default 'own' is none of a, b"):
        cli.Flag("how", default="own", choices=("a", "b"))


def test_a_tilde_stands_for_the_home_folder_in_every_flag_field_and_word(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = CONFIG_FILE.replace("config.seed = 0", 'config.seed = 0\n        config.kept = "~/kept"')
    write(tmp_path / "recipe.py", recipe)
    given = parse(
        "--config=~/recipe.py:ls",
        "--workdir=~/run",
        "--config.note=~",
        "--config.sets=~/a,b~c",
        "--config.optimizer.lr=1",
        "~/word",
        positional=cli.Positional("WORD", "words"),
    )
    assert given.workdir == f"{tmp_path}/run" and given.words == (f"{tmp_path}/word",)
    assert given.config.note == str(tmp_path) and given.config.kept == f"{tmp_path}/kept"
    assert given.config.sets == (f"{tmp_path}/a", "b~c") and given.config.source == "ls"
