"""A dry run of a cross-validation says what its folds take side by side and leaves nothing behind."""

import json

import compilers
import pytest
import tiny_models

from voc2vec_jax import datasets, errors, finetune
from voc2vec_jax.finetuning import dry_run
from voc2vec_jax.planning import report


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    datasets.prepare("synthetic", data_dir=folder / "data", clips=48, progress=False)
    model = tiny_models.write(folder / "model")
    described = json.loads((folder / "model" / "config.json").read_text())
    described["raw_config"] = {"model_type": "wav2vec2", "mask_feature_prob": 0.2}
    (folder / "model" / "config.json").write_text(json.dumps(described))
    fields = (
        f"model={model}",
        f"data_dir={folder / 'data'}",
        "folds=4",
        "epochs=5",
        "max_seconds=0.5",
        "batch_clips=8",
    )
    configured = [f"--config.{field}" for field in fields]
    return ["--config=configs/finetune.py:synthetic", f"--workdir={folder / 'run'}", "--dry_run", *configured]


@pytest.mark.slow
def test_a_dry_run_prints_an_epoch_of_the_folds_at_once_and_writes_nothing(arguments, tmp_path, capsys):
    assert finetune.main([*arguments, f"--workdir={tmp_path / 'run'}", "--config.folds_at_once=2"]) == errors.EXIT_DONE
    printed, said = capsys.readouterr()
    assert "was trained with masks over channels (share 0.2)" in said
    for words in ("2 folds at once", "folds  ", "clips  ", "temporaries", "TFLOP an epoch", "nothing was written"):
        assert words in printed, printed
    assert not list(tmp_path.iterdir())


def test_what_every_seed_takes_is_planned_once(arguments, monkeypatch):
    planned = []
    monkeypatch.setattr(dry_run, "plan", lambda job, request: planned.append(job.config.seed))
    monkeypatch.setattr(report, "show", lambda found, request: None)
    assert finetune.main([*arguments, "--config.seeds=3,4"]) == errors.EXIT_DONE
    assert planned == [3]


def test_features_are_not_planned(arguments):
    with pytest.raises(errors.InputError, match="fixed features, which takes no planning"):
        finetune.main([*arguments, "--config.how=features"])


@pytest.mark.accelerator
@pytest.mark.parametrize("device", ["v5e:1x1", "h100:2"])
def test_an_epoch_is_compiled_for_a_machine_by_name(device, arguments, capsys):
    compilers.machine(device)
    assert finetune.main([*arguments, f"--device={device}", "--json"]) == errors.EXIT_DONE
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == device and found["fits"]
    axis = "map" if device.startswith("v5e") else "vmap"
    assert f"4 folds at once ({axis})" in found["devices"]
    assert found["collectives"] == []  # folds need nothing of each other
    assert found["traffic_bytes"] > 0 and found["unknown_loops"] == 0
