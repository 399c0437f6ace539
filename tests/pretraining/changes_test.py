"""A run that goes on with other values, other batches or other sets, and what its folder says of it afterwards."""

import json

import noise_set
import pytest
import training_runs

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import corpora
from voc2vec_jax.pretraining import changes, held_out
from voc2vec_jax.runs import checkpoint, configuration


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The synthetic set, and forty clips of noise in a set `calls`."""
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("synthetic", data_dir=folder, clips=60, progress=False)
    noise_set.prepare(folder)
    return folder


def metadata(workdir, step):
    return json.loads((workdir / "checkpoints" / str(step) / "metadata.json").read_text())


def passes(workdir, step):
    place = metadata(workdir, step)
    return place["plan_step"] / place["steps_per_epoch"]


@pytest.mark.slow
def test_a_run_is_changed_twice_and_extended_and_its_history_reads_back(data_dir, tmp_path):
    workdir, cache = tmp_path / "run", tmp_path / "cache"

    def run(*arguments):
        return training_runs.finish(training_runs.train(cache, data_dir, workdir, *arguments))

    status, _, err = run("--config.total_steps=7")
    assert status == 0, err
    split = json.loads((workdir / "validation.json").read_text())
    assert split["sets"] == ["synthetic"]
    more = ("--config.total_steps=11", "--config.peak_lr=5e-4")
    status, _, err = run(*more)
    assert status == 2
    assert "total_steps was 7, now 11; " in err and "name what shall change in --resume_with" in err
    status, _, err = run(*more, "--resume_with=total_steps,peak_lr")
    assert status == 0, err
    assert f"{workdir} goes on from step 7 with " in err and "total_steps was 7, now 11" in err
    assert "the learning rate goes from 0 to 0.0002" in err  # 5e-4 * (11 - 7) / (11 - 1), the warm-up being one step
    others = (*more, "--config.total_steps=14", "--config.batch_seconds=16", "--config.sets=synthetic,calls")
    others += ("--config.clip_norm=1", "--config.dtype=bfloat16")
    named = "--resume_with=total_steps,batch_seconds,sets,clip_norm,dtype"
    status, _, err = run(*others, named)
    assert status == 0, err
    assert "other clips validate from here on" in err and "the batches are others from here on" in err

    rows = [row["step"] for row in training_runs.rows_of(workdir) if "split" not in row]
    assert rows == list(range(1, 15))
    history = json.loads((workdir / "config.json").read_text())["history"]
    assert [entry["step"] for entry in history] == [7, 11]
    assert history[0]["changed"] == {"total_steps": [7, 11], "peak_lr": [1e-3, 5e-4]}
    changed = history[1]["changed"]
    assert changed["sets"] == [["synthetic"], ["synthetic", "calls"]] and changed["clip_norm"] == [0.0, 1.0]
    assert changed["dtype"] == ["float32", "bfloat16"] and {"corpus", "held_out"} <= changed.keys()
    # As many passes over the clips as before, to half a step of the new plan, and three steps of it more
    steps_per_epoch = metadata(workdir, 14)["steps_per_epoch"]
    assert abs(passes(workdir, 14) - 3 / steps_per_epoch - passes(workdir, 11)) <= 0.5 / steps_per_epoch
    after = json.loads((workdir / "validation.json").read_text())
    assert {clip for clip in after["clips"] if clip.startswith("synthetic/")} == set(split["clips"])
    assert any(clip.startswith("calls/") for clip in after["clips"])

    status, _, err = run(*others)
    assert status == 0 and "is complete: 14 steps are done" in err
    status, _, err = run(
        *others, "--config.clip_norm=0", "--config.total_steps=15", "--resume_with=clip_norm,total_steps"
    )
    assert status == 0, err
    assert checkpoint.steps(workdir / "checkpoints")[-1] == 15


@pytest.mark.slow
def test_a_killed_change_reaches_the_same_bits_with_and_without_naming_it_again(data_dir, tmp_path):
    cache = tmp_path / "cache"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = ("--config.total_steps=18", "--config.batch_seconds=16", "--config.sets=synthetic,calls")
    named = "--resume_with=total_steps,batch_seconds,sets"
    for workdir in (whole, killed):
        assert training_runs.finish(training_runs.train(cache, data_dir, workdir, "--config.total_steps=7"))[0] == 0
    assert training_runs.finish(training_runs.train(cache, data_dir, whole, *arguments, named))[0] == 0
    for number, more in enumerate(((named,), (named,), ())):
        process = training_runs.train(cache, data_dir, killed, *arguments, *more)
        wanted = 8 + 3 * number  # the first kill comes before the first checkpoint of the changed run
        while process.poll() is None and training_runs.last_step(killed) < wanted:
            pass
        process.kill()
        process.communicate()
    status, _, err = training_runs.finish(training_runs.train(cache, data_dir, killed, *arguments))
    assert status == 0, err
    assert training_runs.identical(training_runs.params_of(killed, 18), training_runs.params_of(whole, 18))
    assert training_runs.rows_of(killed) == training_runs.rows_of(whole)
    histories = [json.loads((run / "config.json").read_text())["history"] for run in (whole, killed)]
    assert [[(one["step"], one["changed"]) for one in history] for history in histories] == [
        [(7, histories[0][0]["changed"])]
    ] * 2


def test_no_clip_that_was_trained_on_validates_when_sets_come_and_go(data_dir):
    one = corpora.open_corpus(data_dir, ["synthetic"])
    both = corpora.open_corpus(data_dir, ["calls", "synthetic"])
    _, valid = held_out.split(one, 0.2, 3, held_out.NOTHING)
    before = held_out.Kept(one.names, frozenset(one.ids(row) for row in valid))
    train, valid = held_out.split(both, 0.2, 4, before)  # the seed decides for the new set alone
    assert sorted([*train, *valid]) == list(range(len(both)))
    names = {both.ids(row) for row in valid}
    assert {name for name in names if name.startswith("synthetic/")} == before.validation
    assert 0 < sum(name.startswith("calls/") for name in names) < 40
    assert not set(both.recording[train]) & set(both.recording[valid])


def test_a_list_of_clips_is_lines_or_a_table_with_ids(data_dir, tmp_path):
    corpus = corpora.open_corpus(data_dir, ["calls"])
    plain, table = tmp_path / "list.txt", tmp_path / "list.csv"
    plain.write_text("calls/03.wav\r\n\ncalls/01.wav\n")
    table.write_text('step,id\n3,calls/03.wav\n4,"calls/01.wav"\n')
    for path in (plain, table):
        rows = held_out.rows_of(corpus, held_out.read_list(path), of="exclude")
        assert [corpus.ids(row) for row in rows] == ["calls/01.wav", "calls/03.wav"]
    assert not len(held_out.rows_of(corpus, ["other/1"], of="exclude"))  # of a set that is not trained on
    for wrong in ("calls/3.wav", "03.wav"):
        with pytest.raises(errors.InputError, match=f"exclude names {wrong}, which is no clip of calls; did you mean"):
            held_out.rows_of(corpus, [wrong], of="exclude")
    with pytest.raises(errors.InputError, match="exclude=.*list.tx cannot be read: No such file.*did you mean .*list"):
        held_out.read_list(tmp_path / "list.tx")


def test_fields_that_may_change_are_named_as_fields_and_groups():
    config = configuration.load(training_runs.TINY)
    assert changes.named(config, "") == ()
    assert changes.named(config, "peak_lr, model.encoder,sets") == ("peak_lr", "model.encoder", "sets")
    with pytest.raises(errors.InputError, match="no field --resume_with=peak_rl; did you mean --resume_with=peak_lr"):
        changes.named(config, "sets,peak_rl")
    for name in changes.FIXED[:3]:
        with pytest.raises(errors.InputError, match=f"--resume_with={name}: a run keeps its {name}"):
            changes.named(config, name)
