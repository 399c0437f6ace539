"""Checkpoints from strangers: a manifest holds for its own folder, and Orbax's files claim no more than they hold."""

import hashlib
import json
import logging
import os
import shutil
import sys

import jax.numpy as jnp
import pytest
import tensorstore

from voc2vec_jax import errors
from voc2vec_jax.runs import checkpoint, manifest, orbax_noise
from voc2vec_jax.runs import folder as run_folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    with checkpoint.Checkpoints(run) as checkpoints:
        checkpoints.save(1, {"params": {"a": jnp.ones((3, 4))}, "opt": jnp.zeros(3)}, {"step": 1})
    return run / "checkpoints" / "1"


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints" / "1")


def rewrite(folder, **changes):
    """A manifest with the right hashes of what lies in the folder, and with `changes`."""
    content = json.loads((folder / manifest.NAME).read_text())
    del content["sha256"]
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != manifest.NAME]
    hashes = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
    content |= {"files": hashes} | changes
    (folder / manifest.NAME).write_bytes(manifest._manifest_bytes(content))
    return hashes


@pytest.mark.parametrize("name", ["../../config.json", "/etc/passwd", "state/../../1/metadata.json", "", ".", "a//b"])
def test_a_manifest_cannot_point_outside_of_its_folder(folder, name):
    rewrite(folder, files=rewrite(folder) | {name: "0" * 64})
    assert f"lists '{name}', which is no place in its folder" in manifest.fault(folder)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a" * 300, "\x1b]0;x\x07" * 10_000])
def test_what_can_be_no_name_is_no_place_in_a_folder(folder, name):
    rewrite(folder, files=rewrite(folder) | {name: "0" * 64})
    said = manifest.fault(folder)
    assert "which is no place in its folder" in said and len(said) - len(str(folder)) < 200


def test_what_the_manifest_does_not_list_is_refused(folder):
    assert manifest.fault(folder) is None
    for name in ("state/d/evil", "state/.zarray", "evil.json"):
        (folder / name).write_text("x")
        assert manifest.fault(folder) == f"{folder / name} is not listed in manifest.json"
        (folder / name).unlink()
    os.mkfifo(folder / "state/pipe")
    assert "state/pipe is not listed" in manifest.fault(folder)
    (folder / "state/pipe").unlink()
    for name in (".DS_Store", "state/.nfs0000000001", "Thumbs.db"):
        (folder / name).write_text("left by a system, and read by nobody")
    assert manifest.fault(folder) is None


def test_links_are_refused_wherever_they_lead(folder):
    for name in ("metadata.json", "state"):
        moved = folder.parent / name
        os.rename(folder / name, moved)
        os.symlink(moved, folder / name)
        assert manifest.fault(folder) == f"{folder / name} is a link, and a checkpoint holds its own files"
        os.replace(moved, folder / name) if name == "metadata.json" else None
    os.rename(folder / manifest.NAME, folder.parent / manifest.NAME)
    os.symlink(folder.parent / manifest.NAME, folder / manifest.NAME)
    assert "is damaged or unreadable" in manifest.fault(folder)


def test_a_pipe_in_the_place_of_a_listed_file_is_not_waited_for(folder):
    (folder / "metadata.json").unlink()
    os.mkfifo(folder / "metadata.json")
    assert manifest.fault(folder) == f"{folder / 'metadata.json'} is no regular file"


@pytest.mark.parametrize(
    "change", [{"files": [1]}, {"files": {"metadata.json": 5}}, {"files": None}, {"leaves": [1]}, {"leaves": {"a": 1}}]
)
def test_a_manifest_of_other_types_is_damaged(folder, change):
    rewrite(folder, **change)
    assert manifest.fault(folder) == f"{folder / manifest.NAME} is damaged or unreadable"


def test_a_manifest_nested_too_deep_is_damaged(folder):
    (folder / manifest.NAME).write_bytes(b"[" * 200_000)
    assert manifest.fault(folder) == f"{folder / manifest.NAME} is damaged or unreadable"


def emptied(folder):
    for path in (folder / "state").rglob("d/*"):
        path.unlink()


def nested(folder):
    path = folder / "state/_METADATA"
    described = json.loads(path.read_text())
    next(iter(described["tree_metadata"].values()))["key_metadata"] = [{"key": "a", "key_type": 2}] * 50_000
    path.write_text(json.dumps(described))


# Each, and whether a resume too needs what it takes away: it has the tree from its own configuration
DAMAGE = {
    "no description": (lambda folder: (folder / "state/_METADATA").unlink(), False),
    "a description of nothing": (lambda folder: (folder / "state/_METADATA").write_text("{}"), True),
    "a tree that is nested deep": (nested, False),
    "no manifest of arrays": (lambda folder: (folder / "state/manifest.ocdbt").unlink(), True),
    "no arrays": (emptied, True),
    "no state": (lambda folder: shutil.rmtree(folder / "state"), True),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_files_of_orbax_that_are_gone_or_damaged_under_right_hashes_are_one_sentence(folder, name, monkeypatch, caplog):
    damage, in_a_resume = DAMAGE[name]
    damage(folder)
    rewrite(folder)
    assert manifest.fault(folder) is None
    sentence = "is as its manifest says, but its arrays cannot be read; take another checkpoint"
    monkeypatch.setattr(logging.getLogger("absl"), "filters", [])
    monkeypatch.setattr(orbax_noise, "_before", print)
    monkeypatch.setattr(sys, "unraisablehook", print)
    with pytest.raises(errors.InputError, match=sentence) as caught:
        checkpoint.read(folder)
    assert "\n" not in str(caught.value)
    # Whatever its threads say when they end, and when they do, the sentence is all that is printed.
    assert not caplog.records and sys.unraisablehook is orbax_noise._hook
    wanted = {"params": {"a": jnp.ones((3, 4))}, "opt": jnp.zeros(3)}
    with checkpoint.Checkpoints(folder.parents[1]) as checkpoints:
        if in_a_resume:
            with pytest.raises(errors.RunError, match=sentence) as caught:
                checkpoints.restore(wanted)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["shape", "chunks"])
def test_arrays_that_claim_more_than_their_files_hold_are_refused(folder, field):
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder / 'state'}"}).result()
    key = next(key for key in store.list().result() if key.endswith(b".zarray") and b"params" in key)
    described = json.loads(store.read(key).result().value)
    described[field] = [2**20, 2**20]
    store.write(key, json.dumps(described).encode()).result()
    rewrite(folder)
    with pytest.raises(errors.InputError, match="would take 4,398,046,511,... bytes, and its files have"):
        checkpoint.read(folder, "params")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(b"[" * 200_000, "is not readable JSON: it is nested"), (b"[1]", "holds a list where an object is needed")],
)
def test_metadata_that_is_no_object_is_one_sentence(folder, text, sentence):
    (folder / "metadata.json").write_bytes(text)
    rewrite(folder)
    with pytest.raises(errors.InputError, match=sentence):
        checkpoint.read(folder)


@pytest.mark.parametrize("text", [b"[" * 200_000, b"[1]", b'{"history": 1}', b'{"a": "' + b"x" * 9_000_000 + b'"}'])
def test_the_configuration_of_a_run_folder_is_an_object_of_bounded_size(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text)
    for read in (run_folder.stored, run_folder.history):
        with pytest.raises(errors.InputError, match=r"config\.json (is damaged|has 9,000,\d+ bytes)") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)
