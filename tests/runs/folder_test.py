"""A run folder belongs to one configuration and one live process, and says so in one sentence."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import pytest

from voc2vec_jax import errors
from voc2vec_jax.runs import agreement
from voc2vec_jax.runs import folder as run_folder

CONFIG = {"seed": 0, "sets": ("a", "b"), "optimizer": {"lr": 5e-4, "clip": None}, "extra": {}}


def change(**fields):
    return {**CONFIG, **fields}


def test_the_first_claim_writes_the_configuration_and_the_environment(tmp_path):
    with run_folder.claim(tmp_path / "deep" / "run", CONFIG) as claim:
        assert json.loads((claim.workdir / "config.json").read_text()) == json.loads(json.dumps(CONFIG))
        environment = json.loads((claim.workdir / "env.json").read_text())
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["devices"] == {"kind": "cpu", "backend": "cpu", "count": 8}
    assert environment["earlier"] == [] and environment["command"]
    root = pathlib.Path(run_folder.__file__).parents[2]
    if (root / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        assert environment["git_revision"].startswith(head.stdout.strip())


def test_the_same_configuration_resumes_and_changes_nothing(tmp_path):
    for _ in range(2):
        run_folder.claim(tmp_path, CONFIG).release()
        assert json.loads((tmp_path / "env.json").read_text())["earlier"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json", "env.json"]


def claim_and_train(workdir):
    run_folder.claim(workdir, CONFIG).release()
    (workdir / "checkpoints" / "1").mkdir(parents=True)


def test_before_the_first_checkpoint_another_configuration_may_take_over(tmp_path):
    """An error at the start names an override to add: the folder must not refuse it."""
    run_folder.claim(tmp_path, CONFIG).release()
    run_folder.claim(tmp_path, change(seed=1)).release()
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


def test_another_configuration_is_refused_with_every_difference(tmp_path):
    claim_and_train(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    other = change(seed=False, sets=["a"], optimizer={"lr": 5e-4}, new={"x": 1})
    with pytest.raises(errors.InputError) as caught:
        run_folder.claim(tmp_path, other)
    assert str(caught.value) == (
        f"--workdir={tmp_path} holds a run with another configuration: seed was 0, now false; "
        'sets was ["a", "b"], now ["a"]; optimizer.clip was null, now absent; new.x was absent, now 1; '
        "give the old values to resume it, or another --workdir"
    )
    assert (tmp_path / "config.json").read_bytes() == before


def test_fields_that_may_differ_are_said_and_recorded(tmp_path, capsys):
    claim_and_train(tmp_path)
    other = change(seed=1, optimizer={"lr": 1e-4, "clip": 2.0})
    with pytest.raises(errors.InputError, match="configuration: seed was 0, now 1; give"):
        run_folder.claim(tmp_path, other, may_differ=("optimizer",))
    run_folder.claim(tmp_path, other, may_differ=("optimizer.clip", "optimizer.lr", "seed")).release()
    assert "seed was 0, now 1; optimizer.lr was 0.0005, now 0.0001" in capsys.readouterr().err
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


def test_another_environment_is_recorded_beside_the_first(tmp_path, monkeypatch):
    run_folder.claim(tmp_path, CONFIG).release()
    first = json.loads((tmp_path / "env.json").read_text())
    monkeypatch.setattr(run_folder.socket, "gethostname", lambda: "elsewhere")
    for _ in range(2):
        run_folder.claim(tmp_path, CONFIG).release()
    now = json.loads((tmp_path / "env.json").read_text())
    assert now["host"] == "elsewhere"
    first.pop("earlier")
    assert now["earlier"] == [first]


HOLDER = """
    import json, sys, time
    from voc2vec_jax.runs import folder as run_folder
    claim = run_folder.claim(sys.argv[1], json.loads(sys.argv[2]))
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holder(workdir):
    """Another process that holds the folder."""
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(workdir), json.dumps(CONFIG)]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_live_processes_cannot_share_a_folder_and_a_dead_one_lets_go(tmp_path):
    with holder(tmp_path) as process:
        sentence = rf"is in use by process {process.pid} on .*: wait for it, stop it, or give another folder"
        for _ in range(2):
            with pytest.raises(errors.InputError, match=sentence):
                run_folder.claim(tmp_path, CONFIG)
    run_folder.claim(tmp_path, CONFIG).release()


def test_a_refusal_and_a_release_let_others_in(tmp_path):
    claim_and_train(tmp_path)
    with pytest.raises(errors.InputError):
        run_folder.claim(tmp_path, change(seed=1))
    with holder(tmp_path):
        pass


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/none/run"])
def test_a_workdir_that_cannot_be_written_is_one_sentence(tmp_path, place):
    (tmp_path / "file").write_text("")
    workdir = place if os.path.isabs(place) else tmp_path / place
    with pytest.raises(errors.InputError, match=f"--workdir={workdir} cannot be written: .*; give a folder that can"):
        run_folder.claim(workdir, CONFIG)


def test_a_damaged_config_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(errors.InputError, match="config.json is damaged"):
        run_folder.claim(tmp_path, CONFIG)


def test_a_run_that_kept_a_tilde_is_resumed_by_the_folder_that_it_stands_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    begun = {"marks": ["checkpoints"]}
    run_folder.claim(tmp_path, change(data="~/clips"), **begun).release()
    (tmp_path / "checkpoints").mkdir()
    run_folder.claim(tmp_path, change(data="/home/ann/clips"), **begun).release()
    assert json.loads((tmp_path / "config.json").read_text())["data"] == "/home/ann/clips"
    with pytest.raises(errors.InputError, match='data was "/home/ann/clips", now "/home/ben/clips"'):
        run_folder.claim(tmp_path, change(data="/home/ben/clips"), **begun)


@pytest.mark.parametrize(
    ("before", "left", "kept"),
    [
        (False, (), False),
        (False, ("leaks.json", "fault.json"), False),
        (False, ("metrics.jsonl",), True),  # a step was done
        (True, (), True),  # it was there: somebody's own folder, or an earlier attempt
    ],
)
def test_a_first_attempt_that_fails_by_its_input_leaves_no_folder(tmp_path, before, left, kept):
    folder = tmp_path / "runs" / "first"
    if before:
        folder.mkdir(parents=True)
    with pytest.raises(errors.InputError, match="no such clips"):
        with run_folder.first_attempt(folder), run_folder.claim(folder, {"lr": 0.1}):
            for name in left:
                (folder / name).write_text("{}")
            raise errors.InputError("no such clips")
    assert folder.exists() == kept


def test_a_first_attempt_that_fails_otherwise_leaves_its_folder(tmp_path):
    with pytest.raises(errors.RunError):
        with run_folder.first_attempt(tmp_path / "run"), run_folder.claim(tmp_path / "run", {"lr": 0.1}):
            raise errors.RunError("the disk is full")
    assert (tmp_path / "run" / "config.json").is_file()


def test_a_process_that_does_not_see_the_folder_of_process_0_says_so(tmp_path, monkeypatch):
    """As process 1 of two, with a folder on a disk of its own."""
    monkeypatch.setattr(agreement, "process_count", lambda: 2)
    monkeypatch.setattr(agreement, "process_index", lambda: 1)
    monkeypatch.setattr(agreement, "first_before_others", lambda make: make())
    said = iter([{}, ".shared-1", {}, ".shared-1"])
    monkeypatch.setattr(agreement, "decided_by_first", lambda decide: next(said))
    with contextlib.ExitStack() as stack:
        with pytest.raises(errors.InputError, match=f"process 1 on .* does not see in --workdir={tmp_path} what"):
            run_folder.claim_for_all(stack, tmp_path, {})
        (tmp_path / ".shared-1").touch()
        assert run_folder.claim_for_all(stack, tmp_path, {}) == {}
