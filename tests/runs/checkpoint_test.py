"""A checkpoint is restored whole and to the bit, or named and passed over; nothing older goes before it is complete."""

import asyncio
import contextlib
import errno
import gc
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from voc2vec_jax import errors
from voc2vec_jax.runs import checkpoint, files, manifest

Spec = jax.sharding.PartitionSpec


def mesh(devices):
    return jax.make_mesh(
        (devices,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
    )


def place(tree, devices):
    """Shard every leaf that the devices divide along its first axis."""
    grid = mesh(devices)

    def sharding(leaf):
        split = leaf.ndim and leaf.shape[0] % devices == 0
        return jax.sharding.NamedSharding(grid, Spec("fsdp") if split else Spec())

    return jax.tree.map(lambda leaf: jax.device_put(leaf, sharding(leaf)), tree)


def make_state(fill, devices=1):
    """Parameters, Adam state and step, every leaf derived from `fill` so that a mixture of two would show."""
    rng = np.random.default_rng(fill)
    params = {
        "encoder": {
            "kernel": jnp.asarray(rng.normal(size=(16, 24)), jnp.float32),
            "scale": jnp.full(5, fill, jnp.bfloat16),
        },
        "quantizer": {"codebook": jnp.asarray(rng.normal(size=(8, 6)), jnp.float32)},
    }
    opt = optax.adam(1e-3).init(params)
    opt = jax.tree.map(lambda leaf: leaf + jnp.asarray(fill, leaf.dtype), opt)
    return place({"params": params, "opt": opt, "step": jnp.asarray(fill, jnp.int32)}, devices)


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def saved(run, *steps, **options):
    with checkpoint.Checkpoints(run, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), {"epoch": step / 10})
    return run / "checkpoints"


def restore(run, state=None):
    with checkpoint.Checkpoints(run) as checkpoints:
        return checkpoints.restore(make_state(0) if state is None else state)


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip_two_bytes(path):
    content = bytearray(path.read_bytes())
    for place in (len(content) // 3, len(content) - 2):
        content[place] ^= 0x10
    path.write_bytes(bytes(content))


def test_what_is_saved_comes_back_to_the_bit_with_its_metadata(tmp_path):
    saved(tmp_path, 7)
    step, state, metadata = restore(tmp_path)
    assert (step, metadata) == (7, {"epoch": 0.7})
    assert_same(state, make_state(7))


def test_an_empty_run_has_nothing_to_restore(tmp_path):
    assert restore(tmp_path) is None


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8), (8, 2)])
def test_another_number_of_devices_restores_the_same_numbers_in_the_wanted_sharding(tmp_path, before, after):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(3, before), {})
    wanted = make_state(0, after)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), wanted)
    _, state, _ = restore(tmp_path, abstract)
    assert_same(state, make_state(3))
    assert all(a.sharding == b.sharding for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(wanted)))


def test_a_process_with_fewer_devices_reads_a_sharded_checkpoint(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(3, 8), {})
    code = """
        import jax, numpy, sys
        from voc2vec_jax.runs import checkpoint
        zeros = {"kernel": numpy.zeros((16, 24), numpy.float32), "scale": jax.numpy.zeros(5, "bfloat16")}
        params = {"encoder": zeros, "quantizer": {"codebook": numpy.zeros((8, 6), numpy.float32)}}
        import optax
        state = {"params": params, "opt": optax.adam(1e-3).init(params), "step": numpy.int32(0)}
        step, state, _ = checkpoint.Checkpoints(sys.argv[1]).restore(state)
        print(len(jax.devices()), step, float(state["params"]["encoder"]["kernel"].sum()))
    """
    words = run_python(code, tmp_path, devices=1).stdout.split()
    assert words[:2] == ["1", "3"]
    assert float(words[2]) == pytest.approx(float(make_state(3)["params"]["encoder"]["kernel"].sum()), rel=1e-6)


def run_python(code, *arguments, devices=1, **options):
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    root = pathlib.Path(__file__).parents[2]
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True, timeout=120, **options
    )


def test_donating_the_state_right_after_save_does_not_touch_the_checkpoint(tmp_path):
    grow = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 2 + 1, tree), donate_argnums=0)
    state = {"w": place(jnp.arange(800_000, dtype=jnp.float32).reshape(8, -1), 8), "n": np.zeros(1000)}
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        state["n"] += 1
        grown = state["w"]
        for _ in range(5):
            grown = grow(grown)
        assert state["w"].is_deleted()
    _, restored, _ = restore(tmp_path, {"w": grown, "n": np.zeros(1000)})
    np.testing.assert_array_equal(np.asarray(restored["w"]).ravel(), np.arange(800_000, dtype=np.float32))
    assert not restored["n"].any()


def test_two_flipped_bytes_in_any_file_are_found_named_and_passed_over(tmp_path, capsys):
    folder = saved(tmp_path, 1, 2)
    names = [path.relative_to(folder / "2") for path in all_files(folder / "2")]
    assert {"manifest.json", "metadata.json"} <= {str(name) for name in names} and len(names) > 6
    for name in names:
        victim = folder / "2" / name
        original = victim.read_bytes()
        flip_two_bytes(victim)
        assert str(victim) in manifest.fault(folder / "2")
        step, state, _ = restore(tmp_path)
        assert step == 1
        assert_same(state, make_state(1))
        said = capsys.readouterr().err
        assert "corrupt" in said and str(victim) in said and "resuming from step 1" in said
        kept = folder / "2.corrupt"
        assert (kept / name).read_bytes() != original  # set aside, not deleted
        (kept / name).write_bytes(original)
        kept.rename(folder / "2")
    assert manifest.fault(folder / "2") is None and restore(tmp_path)[0] == 2


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove"])
def test_truncated_and_missing_files_are_passed_over(tmp_path, damage, capsys):
    folder = saved(tmp_path, 1, 2)
    victim = max(all_files(folder / "2"), key=lambda path: path.stat().st_size)
    if damage == "remove":
        victim.unlink()
    else:
        os.truncate(victim, victim.stat().st_size // 2 if damage == "truncate" else 0)
    assert restore(tmp_path)[0] == 1
    assert str(victim) in capsys.readouterr().err


def test_a_checkpoint_without_manifest_is_half_written(tmp_path, capsys):
    folder = saved(tmp_path, 1, 2)
    (folder / "2" / "manifest.json").unlink()
    assert checkpoint.steps(folder) == [1]
    assert restore(tmp_path)[0] == 1
    assert "half-written" in capsys.readouterr().err
    assert (folder / "2.partial").is_dir()
    saved(tmp_path, 2)
    assert [path.name for path in sorted(folder.iterdir())] == ["1", "2"]


def test_only_a_half_written_first_checkpoint_means_a_start_from_nothing(tmp_path, capsys):
    folder = saved(tmp_path, 1)
    (folder / "1" / "manifest.json").unlink()
    assert restore(tmp_path) is None
    assert "starting from the first step" in capsys.readouterr().err


def test_no_intact_checkpoint_stops_the_run_every_time_and_renames_nothing(tmp_path):
    folder = saved(tmp_path, 1, 2)
    for step in (1, 2):
        flip_two_bytes(folder / str(step) / "metadata.json")
    for _ in range(2):
        with pytest.raises(errors.RunError, match=r"no checkpoint in .* is intact.*2/metadata.json.*1/metadata"):
            restore(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


def test_only_the_newest_can_have_been_cut_short(tmp_path):
    """A manifest missing from an older checkpoint is damage, so a run does not start over in silence."""
    folder = saved(tmp_path, 1, 2)
    for step in (1, 2):
        (folder / str(step) / "manifest.json").unlink()
    with pytest.raises(errors.RunError, match="is intact: .*1/manifest.json is missing; put"):
        restore(tmp_path)


def test_a_manifest_that_was_edited_is_damage_though_every_file_is_as_saved(tmp_path):
    folder = saved(tmp_path, 1) / "1"
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("float32[16,24]", "float32[16,34]"))
    assert manifest.fault(folder) == f"{path} is damaged or unreadable"


def test_latest_intact_looks_and_does_not_touch(tmp_path):
    folder = saved(tmp_path, 1, 2, 3)
    flip_two_bytes(folder / "3" / "metadata.json")
    (folder / "2" / "manifest.json").unlink()
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_intact() == 1
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]


def test_a_corrupt_checkpoint_keeps_its_own_name_when_there_is_one_already(tmp_path):
    folder = saved(tmp_path, 1, 2)
    for _ in range(2):
        flip_two_bytes(folder / "2" / "metadata.json")
        assert restore(tmp_path)[0] == 1
        saved(tmp_path, 2)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["1", "2", "2.corrupt", "2.corrupt.1"]


def widen(params):
    params["encoder"]["kernel"] = jnp.zeros((16, 32))


def promote(params):
    params["encoder"]["scale"] = jnp.zeros(5)


def drop(params):
    del params["quantizer"]


def extend(params):
    params["head"] = jnp.zeros(3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (widen, r"params/encoder/kernel is float32\[16,24\] there and float32\[16,32\] here"),
        (promote, r"params/encoder/scale is bfloat16\[5\] there and float32\[5\] here"),
        (drop, r"params/quantizer/codebook is float32\[8,6\] there and absent here"),
        (extend, r"params/head is absent there and float32\[3\] here"),
    ],
)
def test_a_checkpoint_of_another_model_names_the_first_parameter_that_differs(tmp_path, change, sentence):
    saved(tmp_path, 1)
    wanted = make_state(0)
    change(wanted["params"])
    with pytest.raises(errors.InputError, match=sentence):
        restore(tmp_path, wanted)
    assert restore(tmp_path)[0] == 1


def test_retention_keeps_the_newest_and_every_nth(tmp_path):
    folder = saved(tmp_path, *range(1, 10), keep=2, keep_every_steps=4)
    assert checkpoint.steps(folder) == [4, 8, 9]
    assert sorted(path.name for path in folder.iterdir()) == ["4", "8", "9"]
    with pytest.raises(errors.InputError, match="0 checkpoints"):
        checkpoint.Checkpoints(tmp_path, keep=0)


def test_the_best_is_one_and_saving_it_again_changes_nothing(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        for step in (4, 9, 9, 6):
            checkpoints.save(step, make_state(step), {"loss": step}, best=True, keep=False)
            checkpoints.wait()
            assert checkpoint.steps(tmp_path / "best") == [step]
            if step == 9:
                stamp = (tmp_path / "best/9/manifest.json").stat().st_mtime_ns
                checkpoints.save(9, make_state(0), {}, best=True, keep=False)
                checkpoints.wait()
                assert (tmp_path / "best/9/manifest.json").stat().st_mtime_ns == stamp
        assert checkpoints.latest_intact() is None  # the best is kept apart


def test_the_best_holds_parameters_alone_and_outlives_the_checkpoint_of_its_step(tmp_path):
    size = {}
    with checkpoint.Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, make_state(1), {"loss": 1}, best=True)
        checkpoints.wait()
        size = {
            kind: sum(path.stat().st_size for path in all_files(tmp_path / kind / "1" / "state"))
            for kind in ("best", "checkpoints")
        }
        checkpoints.save(2, make_state(2), {"loss": 2})
        checkpoints.wait()
        assert checkpoint.steps(tmp_path / "checkpoints") == [2] and checkpoint.steps(tmp_path / "best") == [1]
        assert manifest.fault(tmp_path / "best/1") is None
        state, metadata = checkpoint.read(tmp_path / "best/1")
        assert list(state) == ["params"] and metadata == {"loss": 1}
        assert_same(state["params"], make_state(1)["params"])
        assert set(manifest.read(tmp_path / "best/1")["leaves"]) == {
            "params/encoder/kernel",
            "params/encoder/scale",
            "params/quantizer/codebook",
        }
        averaged = {**make_state(4), "ema": make_state(5)["params"]}
        checkpoints.save(3, make_state(3), {"loss": 3}, best=True)
        checkpoints.save(4, averaged, {"loss": 4}, best=True, keep=False)
    assert size["best"] < size["checkpoints"] / 2
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["4"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert_same(checkpoint.read(tmp_path / "best/4", "ema")[0], averaged["ema"])
    assert sorted(checkpoint.read(tmp_path / "best/4")[0]) == ["ema", "params"]
    assert_same(restore(tmp_path)[1], make_state(3))


def test_a_checkpoint_is_complete_only_after_the_best_that_it_names(tmp_path, monkeypatch):
    """A kill between the two is repaired by the rerun, which comes to the same step."""

    write = manifest.write

    def killed(folder, *arguments):
        if folder.parent.name == "checkpoints":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        write(folder, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", killed)
        checkpoints = checkpoint.Checkpoints(tmp_path)
        checkpoints.save(1, make_state(1), {"loss": 1}, best=True)
        with pytest.raises(errors.RunError, match="checkpoints/1 could not be written: Input/output error"):
            checkpoints.close()
    assert checkpoint.steps(tmp_path / "best") == [1] and checkpoint.steps(tmp_path / "checkpoints") == []
    assert restore(tmp_path) is None
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {"loss": 1}, best=True)
    assert_same(restore(tmp_path)[1], make_state(1))


def test_a_best_that_cannot_be_written_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", full)
        checkpoints = checkpoint.Checkpoints(tmp_path)
        checkpoints.save(1, make_state(1), {"loss": 1}, best=True)
        with pytest.raises(errors.RunError, match="checkpoints/1 could not be written: No space left"):
            checkpoints.close()
    assert not list((tmp_path / "best").iterdir()) and not list((tmp_path / "checkpoints").iterdir())


def test_what_a_kill_left_of_a_removal_is_removed(tmp_path, capsys):
    for step in (4, 5, 4, 6):  # the second 4 is a replay
        leftover = tmp_path / "best" / "4.deleted" / "state"
        leftover.mkdir(parents=True, exist_ok=True)
        (leftover / "file").write_text("x")
        with checkpoint.Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(step, make_state(step), {}, best=True, keep=False)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["6"]
    assert capsys.readouterr().err == ""


def test_read_gives_arrays_without_a_model_and_refuses_damage(tmp_path):
    folder = saved(tmp_path, 5) / "5"
    params, metadata = checkpoint.read(folder, "params")
    assert metadata == {"epoch": 0.5}
    assert isinstance(params["encoder"]["kernel"], np.ndarray)
    assert_same(params, jax.tree.map(np.asarray, make_state(5)["params"]))
    whole, _ = checkpoint.read(folder)
    assert int(whole["step"]) == 5
    with pytest.raises(errors.InputError, match="holds no 'parms', only opt, params, step"):
        checkpoint.read(folder, "parms")
    flip_two_bytes(folder / "metadata.json")
    with pytest.raises(errors.InputError, match="no intact checkpoint: .*metadata.json"):
        checkpoint.read(folder)


DAMAGE = {"gone": None, "empty": b"", "text": b"hello", "fields": b"{}", "list": b"[]", "number": b"3"}


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt", "metadata.json"])
def test_damage_under_right_hashes_is_a_sentence(name, tmp_path):
    """As after a copy that lost files, with a manifest that was made for what is left."""
    whole = saved(tmp_path / "whole", 1) / "1"
    kinds, found = manifest.read(whole)["leaves"], []
    for kind, content in DAMAGE.items():
        folder = shutil.copytree(tmp_path / "whole", tmp_path / kind) / "checkpoints" / "1"
        for path in folder.rglob(name):
            path.unlink() if content is None else path.write_bytes(content)
        (folder / "manifest.json").unlink()
        manifest.write(folder, 1, kinds)
        with contextlib.suppress(errors.InputError):
            checkpoint.read(folder)
            found.append(kind)
        with contextlib.suppress(errors.InputError, errors.RunError):
            restore(tmp_path / kind)
    assert found == (["fields"] if name == "metadata.json" else [])


def test_tracebacks_of_writes_that_nobody_waits_for_are_not_printed(tmp_path, capsys, caplog):
    """TensorStore's threads and asyncio tell them, after the sentence of the save that failed."""
    checkpoint.Checkpoints(tmp_path).close()
    loop = asyncio.new_event_loop()
    full = loop.create_future()
    full.set_exception(OSError(errno.ENOSPC, "No space left on device"))
    del full
    gc.collect()
    loop.close()
    closed = RuntimeError("Event loop is closed")
    sys.unraisablehook(types.SimpleNamespace(exc_value=closed, exc_type=RuntimeError, exc_traceback=None, object=None))
    assert capsys.readouterr().err == "" and not caplog.records


def test_typed_keys_are_refused_by_name(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as checkpoints, pytest.raises(TypeError, match=r"typed key.*\['rng'\]"):
        checkpoints.save(1, {"rng": jax.random.key(0)}, {})


def failing_twice(tmp_path, step, reason):
    """A save that fails in the background: said by `check` and by the next save, with the older one whole."""
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(step, make_state(step), {})
    sentence = rf"checkpoints/{step} could not be written: {reason}; the newest complete one is of step 1$"
    deadline = time.monotonic() + 30
    with pytest.raises(errors.RunError, match=sentence):
        while time.monotonic() < deadline:
            checkpoints.check()
            time.sleep(0.01)
    with pytest.raises(errors.RunError, match=sentence):
        checkpoints.save(step + 1, make_state(step + 1), {})
    with pytest.raises(errors.RunError, match=sentence):
        checkpoints.close()


def test_a_disk_that_fills_while_hashing_is_reported_at_once(tmp_path, monkeypatch):
    folder = saved(tmp_path, 1, keep=1)

    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", full)
        failing_twice(tmp_path, 2, "No space left on device")
    assert sorted(path.name for path in folder.iterdir()) == ["1"]
    assert restore(tmp_path)[0] == 1


def test_a_disk_that_is_full_stops_orbax_with_one_sentence_and_loses_nothing(tmp_path):
    """A limit on the size of files stands for the full disk: the system refuses the write below TensorStore."""
    code = """
        import resource, signal, sys, time, numpy
        from voc2vec_jax import errors
        from voc2vec_jax.runs import checkpoint
        noise = numpy.random.default_rng(0).normal(size=200_000)
        with checkpoint.Checkpoints(sys.argv[1], keep=1) as checkpoints:
            checkpoints.save(1, {"w": noise[:10]}, {})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        checkpoints = checkpoint.Checkpoints(sys.argv[1], keep=1)
        checkpoints.save(2, {"w": noise}, {})
        try:
            while True:
                checkpoints.check()
                time.sleep(0.01)
        except errors.RunError as error:
            print(error)
        print(checkpoints.restore({"w": noise[:10]})[0])
    """
    done = run_python(code, tmp_path)
    first, second = done.stdout.splitlines()
    assert first.endswith("2 could not be written: File too large; the newest complete one is of step 1")
    assert second == "1"
    assert done.stderr == ""  # no traceback from the thread behind


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            errors.RunError, match=r"checkpoints/1 could not be written: Not a directory; there is none"
        ):
            checkpoints.save(1, make_state(1), {})


def test_save_returns_before_the_checkpoint_is_complete_and_waits_for_the_one_before(tmp_path, monkeypatch):
    seen = []
    original = manifest.write

    def slow(folder, step, kinds):
        time.sleep(0.3)
        original(folder, step, kinds)
        seen.append(step)

    monkeypatch.setattr(manifest, "write", slow)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        assert seen == []
        checkpoints.save(2, make_state(2), {})
        assert seen == [1]
    assert seen == [1, 2]


SAVER = """
    import sys, itertools, jax, jax.numpy as jnp
    from voc2vec_jax.runs import checkpoint
    checkpoints = checkpoint.Checkpoints(sys.argv[1], keep=2)
    like = {f"leaf{i}": jnp.zeros(30_000) for i in range(6)}
    found = checkpoints.restore(like)
    first = 1 if found is None else found[0] + 1
    for step in itertools.count(first):
        print(step, flush=True)
        state = jax.tree.map(lambda leaf: leaf + step, like)
        checkpoints.save(step, state, {"step": step}, best=step % 2 == 0)
        checkpoints.wait()
"""


def save_until_killed(run, saves, delay_s):
    """The first step that a saving process began with, before SIGKILL met it in its `saves`-th save or so."""
    command = [sys.executable, "-c", textwrap.dedent(SAVER), str(run)]
    root = pathlib.Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    steps = [int(process.stdout.readline()) for _ in range(saves)]
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return steps[0]


@pytest.mark.slow
def test_sigkill_at_random_moments_of_saving_never_yields_a_mixture(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    like = {f"leaf{i}": jnp.zeros(30_000) for i in range(6)}
    newest = 0
    for saves in (1, 3, 2, 2, 1, 3):
        assert save_until_killed(tmp_path, saves, rng.uniform(0, 0.15)) == newest + 1, seed
        with checkpoint.Checkpoints(tmp_path) as checkpoints:
            found = checkpoints.restore(like)
        if found is not None:
            step, state, metadata = found
            assert step >= newest + saves - 1 and metadata == {"step": step}, seed
            for leaf in jax.tree.leaves(state):
                np.testing.assert_array_equal(np.asarray(leaf), np.full(30_000, step, np.float32), str(seed))
            newest = step
        for step in checkpoint.steps(tmp_path / "best"):
            tree, _ = checkpoint.read(tmp_path / "best" / str(step))
            assert all((leaf == step).all() for leaf in tree.values()), seed
    assert newest >= 6, seed
    assert not list((tmp_path / "checkpoints").glob("*.corrupt*")), seed
    assert len(list((tmp_path / "checkpoints").glob("*.partial"))) <= 1, seed


def test_the_manifest_lists_every_file_and_is_written_last(tmp_path):
    folder = saved(tmp_path, 1) / "1"
    listed = json.loads((folder / "manifest.json").read_text())
    others = {str(path.relative_to(folder)) for path in all_files(folder)} - {"manifest.json"}
    assert set(listed["files"]) == others
    newest = max(path.stat().st_mtime_ns for path in all_files(folder) if path.name != "manifest.json")
    assert (folder / "manifest.json").stat().st_mtime_ns >= newest
    assert listed["leaves"]["params/encoder/kernel"] == "float32[16,24]"
