"""voc2vec verify: verdicts, the table, verify.json and its lock, stored numbers, and whole systems behind a Hub."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.convert import paper_systems, reader, sources, weight_files
from voc2vec_jax.programs import verify
from voc2vec_jax.runs import program
from voc2vec_jax.verification import output, pins, recordings, rows, states, stored, systems


def run(capsys, *argv):
    """Exit status, standard output, standard error."""
    status = program.run(verify.main, [str(word) for word in argv])
    out, err = capsys.readouterr()
    return status, out, err


def some_states(seed=0, scale=1.0):
    """States of three recordings as a model of two blocks would give."""
    rng = np.random.default_rng(seed)
    return [[scale * rng.standard_normal((t, 8)).astype(np.float32) for _ in range(3)] for t in (5, 9, 4)]


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Garbage of models that were not made is not collected: that takes a second where torch is loaded."""
    monkeypatch.setattr(systems.gc, "collect", lambda: 0)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder that counts as a model of 95 parameters, whose states are `some_states` on both sides."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    weights = reader.ModelWeights("wav2vec2", None, {"encoder": {"a": np.zeros(95)}}, source_format="hf")
    monkeypatch.setattr(sources, "read", lambda path: weights)
    monkeypatch.setattr(states, "ours", lambda *_: some_states())
    monkeypatch.setattr(states, "theirs", lambda *_: some_states())
    monkeypatch.setattr(states, "program", lambda: "transformers 1.0")
    return folder


def test_the_worst_state_decides_relative_to_its_own_size():
    small, large = some_states(), some_states(1, 100.0)
    mine = [[a.copy() for a in x] + [b.copy() for b in y] for x, y in zip(small, large)]
    other = [[*x, *y] for x, y in zip(small, large)]
    mine[1][3][0, 0] += 1.5e-2  # a state with values up to 300
    found = states.furthest(mine, other)
    assert found.verdict == rows.EQUAL and found.states == 18
    mine[2][1][0, 0] += 1e-2  # less, but more than 1e-4, with values up to 3
    found = states.furthest(mine, other)
    assert found.verdict == rows.DIFFERS and found.difference == pytest.approx(1e-2, rel=1e-3) and found.largest < 10
    mine[0][0][0, 0] = np.nan
    assert np.isnan(states.furthest(mine, other).difference)
    assert states.furthest(mine, other).verdict == rows.DIFFERS
    with pytest.raises(errors.RunError, match="18 states here and 9 there"):
        states.furthest(mine, small)


def test_nan_is_furthest_off_and_states_of_small_values_are_taken_absolutely():
    assert np.isnan(states.worst([(np.inf, 1.0), (np.nan, 1.0), (np.inf, 1.0)]).difference)
    assert states.worst([(5e-5, 0.01), (2e-4, 1.0)])[:2] == (2e-4, 1.0)  # 5e-5 is within the tolerance


@pytest.mark.parametrize("largest, allowed", [(0.01, 1e-4), (1.0, 1e-4), (30.0, 3e-3)])
def test_the_tolerance_is_absolute_and_relative_to_large_values(largest, allowed):
    assert rows.verdict(allowed, largest) == rows.EQUAL
    assert rows.verdict(1.001 * allowed, largest) == rows.DIFFERS
    assert rows.verdict(float("inf"), float("inf")) == rows.DIFFERS  # that of infinity where a finite value was
    assert rows.verdict(float("nan"), largest) == rows.verdict(float("inf"), largest) == rows.DIFFERS


def test_stored_numbers_see_what_lies_between_their_values():
    mine, far = some_states(), some_states()
    far[1][2][4, 3] = -50.0  # none of the sixteen values, of which that state has 72
    assert stored.compare(far, stored.of(mine, "", "")).verdict == rows.DIFFERS
    with pytest.raises(errors.RunError, match=r"\[3, 3, 2\] states of the recordings here, and \[3, 3, 3\] are stored"):
        stored.compare([*mine[:2], mine[2][:2]], stored.of(mine, "", ""))


def test_a_model_that_computes_the_same_is_equal_and_written_down(tiny, tmp_path, capsys):
    status, out, err = run(capsys, tiny, f"--output={tmp_path / 'out'}")
    assert status == 0
    assert "0.0e+00 of " in out and "transformers 1.0: 9 states of 3 recordings" in out and "1 equal" in out
    assert "model.safetensors: 7 bytes, SHA-256 " in err
    written = json.loads((tmp_path / "out" / "verify.json").read_text())
    (row,) = written["systems"]
    assert row["parameters"] == 95 and row["verdict"] == "equal" and row["files"][0]["name"] == "config.json"
    assert written["recordings"] == recordings.DIGESTS and written["versions"]["transformers"]


def test_one_that_does_not_ends_with_status_1_and_says_how_far(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(states, "theirs", lambda *_: some_states(1))
    status, out, _ = run(capsys, tiny, f"--output={tmp_path / 'out'}")
    assert status == 1 and "differs" in out and "hidden states are up to" in out and "1 differs" in out


def test_a_lock_repeats_the_bytes_and_refuses_others(tiny, tmp_path, capsys):
    lock, words = tmp_path / "out" / "verify.json", (tiny, f"--output={tmp_path / 'out'}")
    assert run(capsys, *words)[0] == 0
    assert run(capsys, f"--lock={lock}", f"--output={tmp_path / 'again'}")[0] == 0
    (tiny / "model.safetensors").write_bytes(b"WEIGHTS")
    status, out, _ = run(capsys, f"--lock={lock}", f"--output={tmp_path / 'again'}")
    assert status == 1 and "model.safetensors has 7 bytes and SHA-256" in out and "1 differs" in out
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")  # in whose place nothing is known
    status, out, _ = run(capsys, f"--lock={lock}", f"--output={tmp_path / 'again'}")
    assert status == 1 and f"{tiny} lacks model.safetensors, which should be there" in out
    status, _, err = run(capsys, "voc2vec", f"--lock={lock}")
    assert status == 2 and "has no voc2vec, only" in err


SIZED = '{"systems": [{"system": "a", "revision": "", "files": [{"name": "x", "sha256": "HASH", "size": SIZE}]}]}'


@pytest.mark.parametrize(
    "text, reason",
    [
        ("[]", "holds a list"),
        ("{}", "is no verify.json: it has no list of systems"),
        ('{"systems": [{"system": "a"}]}', "a row lacks 'files'"),
        (
            '{"systems": [{"system": "a", "revision": "main", "files": [{"name": "x", "size": 1, "sha256": "HASH"}]}]}',
            "a has no commit or no SHA-256",
        ),
        ('{"systems": [{"system": "a", "revision": "", "files": []}]}', "it locks nothing"),
        ('{"systems": [1]}', "1 is no row of a system; write it again"),
        ('{"systems": [{"system": "a", "revision": "", "files": null}]}', "is no row of a system; write it again"),
        *(
            (SIZED.replace("SIZE", size), f"{shown} is no size of a file of a; write it again")
            for size, shown in (("Infinity", "inf"), ("-1", "-1"), ('"7"', "'7'"), ("true", "True"), ("null", "None"))
        ),
        (
            '{"systems": [{"system": "a", "revision": "", "files": [{"name": "x", "size": 1, "sha256": "0"}]}]}',
            "no commit or no SHA-256",
        ),
    ],
)
def test_what_is_no_lock_is_one_sentence(text, reason, tmp_path, capsys):
    (tmp_path / "lock.json").write_text(text.replace("HASH", "0" * 64))
    status, _, err = run(capsys, f"--lock={tmp_path / 'lock.json'}")
    assert status == 2 and reason in err and len(err.splitlines()) == 1


def test_numbers_are_stored_and_stand_in_for_transformers(tiny, tmp_path, capsys, monkeypatch):
    out, numbers = f"--output={tmp_path / 'out'}", tmp_path / "numbers.json"
    assert run(capsys, tiny, out, f"--store={numbers}")[0] == 0
    assert run(capsys, tiny, out, "--against=stored", f"--numbers={numbers}")[0] == 0
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # neither torch nor transformers
    status, text, _ = run(capsys, tiny, out, f"--numbers={numbers}")
    assert status == 0 and "stored numbers of transformers 1.0: 9 states of 3 recordings" in text
    off = some_states()
    off[1][2] = off[1][2] * np.float32(1.001)
    monkeypatch.setattr(states, "ours", lambda *_: off)
    assert run(capsys, tiny, out, f"--numbers={numbers}")[0] == 1
    (tiny / "model.safetensors").write_bytes(b"WEIGHTS")
    status, text, _ = run(capsys, tiny, out, f"--numbers={numbers}")
    assert status == 1 and "the stored numbers are of other weights" in text and "1 not checked" in text
    status, text, _ = run(capsys, tiny, out)
    assert "torch and transformers are not installed" in text and "no numbers of it are stored" in text
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else name)
    assert "torch is not installed: pip install torch transformers" in run(capsys, tiny, out)[1]
    numbers.write_text(numbers.read_text().replace(recordings.DIGESTS["cry"], "0" * 64))
    status, _, err = run(capsys, tiny, out, f"--numbers={numbers}")
    assert status == 2 and "holds no reference numbers of these recordings" in err


def test_the_packaged_numbers_can_be_read():
    assert stored.read(stored.PACKAGED).keys() <= paper_systems.SYSTEMS.keys()


def test_a_fault_of_one_system_is_its_row(tiny, tmp_path, capsys, monkeypatch):
    def read(path):
        raise errors.InputError("it is broken; mend it")

    other = tmp_path / "other"
    other.mkdir()
    status, out, _ = run(capsys, tiny, other, f"--output={tmp_path / 'out'}")
    assert status == 0 and "2 equal" in out
    monkeypatch.setattr(sources, "read", read)
    status, out, _ = run(capsys, tiny, f"--output={tmp_path / 'out'}")
    assert status == 1 and "it is broken; mend it" in out and "1 not checked" in out


def test_systems_that_are_not_here_are_not_checked(tmp_path, capsys, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status, out, _ = run(capsys, f"--output={tmp_path / 'out'}")
    assert status == 1 and f"{len(paper_systems.SYSTEMS)} not checked" in out
    for name in paper_systems.SYSTEMS:
        assert f"\n{name}: " in out
    assert "facebook/wav2vec2-base is not complete here: no config.json (1,842 bytes)" in out
    assert "no pytorch_model.bin (380,267,417 bytes); HF_HUB_OFFLINE is set" in out
    assert "it has no weights, and its package is not installed" in out


def test_pins_are_of_systems_and_whole():
    assert pins.PINS.keys() <= paper_systems.SYSTEMS.keys()
    for pin in pins.PINS.values():
        assert len(pin.revision) == 40 and all(len(sha256) == 64 for _, sha256 in pin.files.values())


@pytest.mark.parametrize(
    "words, reason",
    [
        (["voc2vce"], "did you mean voc2vec"),
        ([""], "'' is neither a system, a file or folder, nor a Hub id"),
        (["--recordings=here"], "--recordings is for --against=published"),
        (["--store=absent/x.json"], "there is no folder absent"),
        (["--store=x.json", "--against=stored"], "--store keeps transformers' numbers: leave it or --against=stored"),
        (["--store=x.json", "--against=published"], "leave it or --against=published"),
        (["--numbers=x.json", "--against=published"], "--numbers is what is compared with: leave it or"),
        (["--store=file"], "holds no reference numbers"),
        (["--output=file"], "--output=file: file is a file; give a folder"),
        (["--output=file/below"], "--output=file/below: file is a file; give a folder"),
        (["--numbers=absent.json"], "there is no absent.json; voc2vec verify --store=FILE writes one"),
        (["--lock=absent.json"], "there is no absent.json; voc2vec verify writes one, without --lock"),
        (["--against=fairseq"], "fairseq"),
    ],
)
def test_slips_give_one_sentence_and_status_2(words, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("{}")
    status, _, err = run(capsys, *words)
    assert status == 2 and reason in err and len(err.splitlines()) == 1


def test_a_strangers_text_makes_no_line_of_its_own_in_the_table():
    row = rows.Row(
        "a", "a", "", None, "stored numbers of x\nb  equal", None, None, rows.DIFFERS, "why\n\x1b[31mc: equal"
    )
    assert len(output.table([row]).splitlines()) == 4 and "\x1b" not in output.table([row])


def test_the_status_and_the_summary():
    row = rows.Row("a", "a", "", None, "", None, None, rows.EQUAL)
    absent = dataclasses.replace(row, verdict=rows.NOT_CHECKED)
    assert output.status([row, absent]) == 0 and output.summary([row, absent]) == "1 equal, 1 not checked"
    assert output.status([absent]) == 1 and output.status([]) == 1
    assert output.status([row, dataclasses.replace(absent, failed=True)]) == 1
    assert output.status([row, dataclasses.replace(row, verdict=rows.DIFFERS)]) == 1


CHECK = """
import sys
from voc2vec_jax.programs import verify
from voc2vec_jax.runs import program
from voc2vec_jax.verification import pins

pins.PINS.clear()  # of the published models
sys.exit(program.run(verify.main))
"""


@pytest.mark.slow
def test_models_in_each_published_layout_are_fetched_and_compared(tmp_path):
    """Their numbers are stored, and met again from the cache alone."""
    import hub
    import stand_ins

    names = ["wav2vec2-as", "wavlm-plus", "data2vec", "voc2vec-as", "hubert-ls", "emotion2vec"]
    folders = {stand_ins.source(name): stand_ins.write(tmp_path / name, name) for name in names}
    numbers = tmp_path / "numbers.json"

    def check(server, *words):
        command = [sys.executable, "-c", CHECK, *words, f"--output={tmp_path / 'out'}"]
        environment = server.environment(tmp_path / "home")
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
        assert not done.stderr.count("Traceback"), done.stderr[-2000:]
        found = json.loads((tmp_path / "out" / "verify.json").read_text())["systems"]
        return done.returncode, {row["system"]: row for row in found}

    with hub.running(folders) as server:
        status, found = check(server, *names, f"--store={numbers}")
        assert status == 0, found
        assert {row["verdict"] for name, row in found.items() if name != "emotion2vec"} == {"equal"}
        assert found["emotion2vec"]["verdict"] == "not checked" and found["emotion2vec (network)"]["difference"] < 2e-5
        assert all(row["revision"] == server.revision(row["source"]) for row in found.values() if row["revision"])
        server.folders.clear()  # the rest comes from the cache
        assert check(server, "wavlm-plus", "--against=stored", f"--numbers={numbers}")[0] == 0
    assert weight_files.read_json(numbers)["systems"].keys() == {*names} - {"emotion2vec"}
