"""The folder of an evaluation: one claim among many, files that appear whole, and errors that are merged once."""

import csv
import errno
import json
import threading

import pytest

from voc2vec_jax import errors
from voc2vec_jax.inference.evaluation import output as evaluation_output

WANTED = {"kind": "embeddings", "rows": 10, "part_files": 4, "weights": "abc", "model": "a", "input": "b"}


def test_of_workers_that_start_at_once_one_sets_the_terms(tmp_path):
    """All with the same terms go on; with different ones, those of a single worker hold."""
    barrier, ended = threading.Barrier(16), []

    def claim(weights):
        barrier.wait()
        try:
            ended.append(evaluation_output.OutputFolder(tmp_path, WANTED | {"weights": weights}).description["weights"])
        except errors.InputError:
            ended.append(None)

    threads = [threading.Thread(target=claim, args=(str(k % 4),)) for k in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = set(ended) - {None}
    assert ended.count(winner) == 4 and ended.count(None) == 12
    assert json.loads((tmp_path / "evaluation.json").read_text())["weights"] == winner
    assert not list(tmp_path.glob(".*"))


def test_a_claim_that_comes_first_at_the_last_moment_holds(tmp_path, monkeypatch):
    link = evaluation_output.os.link

    def late(temporary, path):
        path.write_text(json.dumps(WANTED | {"model": "the other's"}))
        link(temporary, path)

    monkeypatch.setattr(evaluation_output.os, "link", late)
    assert evaluation_output.OutputFolder(tmp_path, WANTED).description["model"] == "the other's"


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(evaluation_output.os, "link", refuse)
    assert evaluation_output.OutputFolder(tmp_path, WANTED).description == WANTED
    with pytest.raises(errors.InputError, match="whose weights is abc, and this one's is abd"):
        evaluation_output.OutputFolder(tmp_path, WANTED | {"weights": "abd"})


def test_the_place_of_model_and_input_may_change(tmp_path):
    evaluation_output.OutputFolder(tmp_path, WANTED)
    again = evaluation_output.OutputFolder(tmp_path, WANTED | {"model": "/elsewhere/a", "input": "/elsewhere/b"})
    assert again.description == WANTED  # so that every part says the same


def test_parts_are_counted_and_found(tmp_path):
    output = evaluation_output.OutputFolder(tmp_path, WANTED)
    assert output.parts == 3 and output.missing() == [0, 1, 2]
    output.part(1).touch()
    output.part(2).with_name(".00002.parquet.12.tmp").touch()
    assert output.missing() == [0, 2]
    output.clean()
    assert output.missing() == [0, 2] and len(list((tmp_path / "parts").iterdir())) == 1


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), evaluation_output.whole(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1
    with evaluation_output.whole(path) as temporary:
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_a_fault_of_the_run(tmp_path):
    with pytest.raises(errors.RunError, match="a cannot be written: No space left"):
        with evaluation_output.whole(tmp_path / "a"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_another_worker_may_clean_up_when_the_same_file_is_there(tmp_path):
    with evaluation_output.whole(tmp_path / "a") as temporary:
        temporary.write_text("mine")
        (tmp_path / "a").write_text("theirs")
        temporary.unlink()
    assert (tmp_path / "a").read_text() == "theirs"
    with pytest.raises(errors.RunError, match="b cannot be written"), evaluation_output.whole(tmp_path / "b") as path:
        path.write_text("mine")
        path.unlink()


def test_errors_of_all_parts_are_merged_once_in_order(tmp_path):
    output = evaluation_output.OutputFolder(tmp_path, WANTED)
    odd = 'a "quoted", name\nof two lines\rand a half'
    output.write_rows("errors", 2, [(9, "c", "c", "third")])
    output.write_rows("errors", 0, [(0, odd, "carriage\rreturn", "first"), (3, "b", "b", "second")])
    output.write_rows("errors", 1, [(5, "d", "d", "found by an attempt that was killed")])
    output.write_rows("errors", 1, [])
    for _ in range(2):
        assert output.merge_rows("errors") == 3
    with (tmp_path / "errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["reason"] for row in rows] == ["first", "second", "third"]
    assert b"\r\n" not in (tmp_path / "errors.csv").read_bytes()
    assert rows[0]["path"] == "carriage\rreturn"
    assert rows[0]["id"] == odd and tuple(rows[0]) == evaluation_output.COLUMNS["errors"]


def test_a_damaged_claim_is_named(tmp_path):
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(errors.InputError, match="evaluation.json is damaged .*: give another --output"):
        evaluation_output.OutputFolder(tmp_path, WANTED)
