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


def test_arrays_are_written_without_pickles(tmp_path):
    results.write_npz(tmp_path / "a.npz", ids=np.array(["x", "y"]), vectors=np.eye(2))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found["ids"].tolist() == ["x", "y"] and (found["vectors"] == np.eye(2)).all()
