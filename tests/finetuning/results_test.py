"""What counts as done: a fold with its fold.json, a run with a complete summary, and nothing else."""

import json

import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.finetuning import results


def finish(workdir, fold):
    results.fold_folder(workdir, fold).mkdir()
    results.write_fold(workdir, {"fold": fold, "history": ({"fold": fold, "epoch": 1},)})


def test_a_fold_is_done_when_its_last_file_is_there(tmp_path):
    finish(tmp_path, 2)
    (tmp_path / "fold_00" / "model").mkdir(parents=True)
    (tmp_path / "fold_00" / "predictions.csv").write_text("half a fold")
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    assert results.status(tmp_path, 3) == results.RunStatus(done=(2,), complete=False)
    finish(tmp_path, 1)
    assert results.status(tmp_path, 3).done == (1, 2) and results.status(tmp_path, 2).done == (1,)
    assert results.read_fold(tmp_path, 1) == {"fold": 1, "history": [{"fold": 1, "epoch": 1}]}


def test_a_run_is_complete_when_its_summary_says_so(tmp_path):
    for fold in range(2):
        finish(tmp_path, fold)
    assert results.status(tmp_path, 2) == results.RunStatus(done=(0, 1), complete=False)
    for complete in (False, True):
        (tmp_path / "summary.json").write_text(json.dumps({"complete": complete}))
        assert results.status(tmp_path, 2) == results.RunStatus(done=(0, 1), complete=complete)


def test_damaged_files_are_named_with_a_remedy(tmp_path):
    finish(tmp_path, 0)
    (tmp_path / "fold_00" / "fold.json").write_text("{")
    with pytest.raises(errors.InputError, match="fold_00/fold.json is damaged .*: delete it and run again"):
        results.read_fold(tmp_path, 0)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(errors.InputError, match="summary.json cannot be read .*: run the cross-validation again"):
        results.status(tmp_path, 1)


@pytest.mark.parametrize("left", [None, b"", b'{"fold": 0, "epoch": 1, "loss": 9}\n{"fold": 1, "ep', b"[1]\n\xff\n"])
def test_metrics_that_were_lost_come_back_from_the_records(tmp_path, left):
    for fold in range(2):
        finish(tmp_path, fold)
    path = tmp_path / "metrics.jsonl"
    if left is not None:
        path.write_bytes(left + b'{"fold": 2, "epoch": 1}\n')  # of a fold that is not done
    results.gather_metrics(tmp_path, 3)
    wanted = [{"fold": 0, "epoch": 1}, {"fold": 1, "epoch": 1}, {"fold": 2, "epoch": 1}]
    kept = left is not None and not left.endswith(b'"ep')  # else that line is gone, or a part of the one before it
    assert results.metrics_rows(path) == wanted[: 3 if kept else 2]


def test_the_metrics_of_a_finished_run_are_written_again_only_where_they_are_gone(tmp_path):
    finish(tmp_path, 0)
    path = tmp_path / "metrics.jsonl"
    results.restore_metrics(tmp_path, 1)
    assert results.metrics_rows(path) == [{"fold": 0, "epoch": 1}]
    path.write_text("as it is")
    results.restore_metrics(tmp_path, 1)
    assert path.read_text() == "as it is"


def test_arrays_are_written_without_pickles(tmp_path):
    results.write_npz(tmp_path / "a.npz", ids=np.array(["x", "y"]), vectors=np.eye(2))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found["ids"].tolist() == ["x", "y"] and (found["vectors"] == np.eye(2)).all()


def test_predictions_of_all_folds_have_one_header(tmp_path):
    for fold in (1, 3):
        finish(tmp_path, fold)
        lines = f'fold,id\n{fold},a{fold}\n{fold},"b,{fold}"\n'
        (results.fold_folder(tmp_path, fold) / "predictions.csv").write_text(lines)
    results._join_predictions(tmp_path, (1, 3))
    assert (tmp_path / "predictions.csv").read_text() == 'fold,id\n1,a1\n1,"b,1"\n3,a3\n3,"b,3"\n'


# --- all clips together


def pool(folders, groups, stored=("targets", "logits", "groups", "ids")):
    """The pooled scores of the same six clips in every folder."""
    true, predicted = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 1, 1, 1, 0, 0])
    logits = np.eye(2, dtype=np.float32)[predicted]
    arrays = {"targets": true, "logits": logits, "groups": np.array(groups), "ids": np.array(list("abcdef"))}
    matrix = np.zeros((2, 2), int)
    np.add.at(matrix, (true, predicted), 1)
    runs = []
    for folder in folders:
        (folder / "fold_00").mkdir(parents=True)
        results.write_npz(folder / "fold_00" / "embeddings.npz", **{name: arrays[name] for name in stored})
        runs.append((folder, [{"fold": 0, "confusion": matrix.tolist()}]))
    return results.pooled("classes", runs, "tested")


@pytest.mark.parametrize("groups", [[-1] * 6, [0, 0, 1, 1, -1, -1]])
def test_a_clip_that_several_seeds_test_is_drawn_once_with_all_of_them(groups, tmp_path):
    """Two equal seeds say nothing that one did not: the interval stays as wide, also for clips of unknown groups."""
    one, two = pool([tmp_path / "one"], groups), pool([tmp_path / "a", tmp_path / "b"], groups)
    assert one == two and one["accuracy"]["low"] < one["accuracy"]["value"] == pytest.approx(4 / 6)


def test_folds_of_an_earlier_version_are_pooled_without_an_interval(tmp_path):
    found = pool([tmp_path], [-1] * 6, stored=("ids",))
    assert found["accuracy"] == {"value": pytest.approx(4 / 6), "low": None, "high": None}
