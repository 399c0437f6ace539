"""A snapshot is fetched, resumed, hashed and found offline; every fault of servers and networks is one sentence."""

import errno
import fcntl
import os
import pathlib
import sys
import threading

import hub
import pytest
from huggingface_hub import constants, file_download, utils

from voc2vec_jax import errors
from voc2vec_jax.convert import sources
from voc2vec_jax.verification import downloads, pins, snapshots

NAME, WEIGHTS = "someone/cries", "pytorch_model.bin"
BYTES = 50_000
NEWEST = pins.Pin()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Hub with one repository, an empty cache, and downloads in small pieces, without pauses between attempts."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "wav2vec2"}')
    (folder / WEIGHTS).write_bytes(os.urandom(BYTES))
    (folder / "README.md").write_text("not asked for")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    utils.disable_progress_bars()
    with hub.running({NAME: folder}) as server:
        at(server.url, monkeypatch)
        yield server
        utils.close_session()
    utils.enable_progress_bars()


def at(url, monkeypatch):
    """Asks this address from now on."""
    utils.close_session()
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def bodies(server):
    """The ranges of the requests for the weights' bytes."""
    return [asked for method, path, asked in server.asked if method == "GET" and path.endswith(WEIGHTS)]


def refused(kind, reason, pin=NEWEST, name=NAME):
    with pytest.raises(kind, match=reason) as caught:
        snapshots.fetch(name, pin)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 300
    assert type(caught.value) is kind


def test_a_snapshot_is_fetched_once_and_its_files_are_hashed(server):
    first = snapshots.fetch(NAME, NEWEST)
    assert first.revision == server.revision(NAME) and not first.fault
    assert [(file.name, file.checked) for file in first.files] == [
        ("config.json", "the Hub's hash"),
        (WEIGHTS, "the Hub's hash"),
    ]
    weights = server.folders[NAME] / WEIGHTS
    assert (first.files[1].size, first.files[1].sha256) == (BYTES, hub.tag(weights))
    assert not any("README" in path for _, path, _ in server.asked)
    count = len(bodies(server))
    assert snapshots.fetch(NAME, pins.Pin(first.revision)) == first
    assert len(bodies(server)) == count == 1


def test_of_a_repository_its_json_and_one_kind_of_weights_are_wanted():
    beside = ["README.md", "config.json", "onnx/config.json", "onnx/model.safetensors", "tf_model.h5"]
    assert sources.wanted([*beside, WEIGHTS, "model.safetensors"]) == ["config.json", "model.safetensors"]
    assert sources.wanted([*beside, WEIGHTS, f"{WEIGHTS}.index.json"])[1:] == [WEIGHTS, f"{WEIGHTS}.index.json"]
    assert sources.wanted(["a.pt", "config.yaml", "example/a.pt"]) == ["a.pt", "config.yaml"]


def test_a_download_that_broke_off_goes_on_where_it_ended(server, capsys):
    server.faults[WEIGHTS] = hub.Fault(cut=20_000, times=1)
    snapshots.fetch(NAME, NEWEST)
    assert bodies(server) == ["", "bytes=20000-"]
    server.asked.clear()
    (server.folders[NAME] / WEIGHTS).write_bytes(os.urandom(BYTES))
    server.revisions[NAME] = "1" * 40
    server.faults[WEIGHTS] = hub.Fault(cut=0)
    tag = hub.tag(server.folders[NAME] / WEIGHTS)
    blobs = downloads.repository(NAME) / "blobs"
    (blobs / f"{tag}.part").write_bytes((server.folders[NAME] / WEIGHTS).read_bytes()[:30_000])
    refused(errors.RunError, "the download of someone/cries broke off .*: run again, and it goes on")
    assert set(bodies(server)) == {"bytes=30000-"} and downloads.part(NAME, tag) == 30_000
    server.faults.clear()
    assert not snapshots.fetch(NAME, NEWEST).fault
    assert bodies(server)[-1] == "bytes=30000-" and not list(blobs.glob("*.part"))
    assert "pytorch_model.bin: goes on after 30,000 of 50,000 bytes" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["config.json", WEIGHTS])
def test_wrong_bytes_are_thrown_away(server, file):
    server.faults[file] = hub.Fault(flip=7)
    refused(errors.RunError, f"{file} came with the hash .* where the Hub names .* thrown away, so run again")
    server.faults.clear()
    assert not snapshots.fetch(NAME, NEWEST).fault


def test_a_part_of_something_else_does_no_harm(server):
    tag = hub.tag(server.folders[NAME] / WEIGHTS)
    blobs = downloads.repository(NAME) / "blobs"
    blobs.mkdir(parents=True)
    for junk in (b"x" * 40_000, b"x" * 60_000):
        (blobs / f"{tag}.part").write_bytes(junk)
        if len(junk) < BYTES:
            refused(errors.RunError, "the part from before was damaged")
    assert not snapshots.fetch(NAME, NEWEST).fault


@pytest.mark.parametrize(
    "where, status, reason",
    [
        (NAME, 401, "answers 401 for someone/cries: no such model, or it wants a login: `hf auth login`"),
        (WEIGHTS, 401, "answers 401 .* wants a login"),
        (NAME, 403, "answers 403 .* accepted its terms"),
        (WEIGHTS, 404, "answers 404 .* no such model or file"),
        (NAME, 500, "answers 500 .* wait, and run again"),
    ],
)
def test_a_refusal_is_one_sentence(server, where, status, reason):
    server.faults[where] = hub.Fault(status=status)
    refused(errors.RunError, reason)


def test_what_the_hub_does_not_have_is_named(server):
    refused(errors.RunError, "the Hub answers 404 for someone/else", name="someone/else")
    refused(errors.RunError, f"no revision {'f' * 40} of {NAME}", pins.Pin("f" * 40))
    known = {"model.safetensors": (10, "0" * 64)}
    refused(errors.RunError, "lacks model.safetensors, which should be there", pins.Pin("", known))


@pytest.mark.parametrize("commit", ["main", "../../elsewhere"])
def test_a_server_without_commits_is_no_hub(commit, server):
    server.revisions[NAME] = commit
    refused(errors.RunError, "names no commit of someone/cries, so it is no Hub: mend HF_ENDPOINT, or unset it")


def test_a_cache_that_takes_no_file_is_named_with_what_mends_it(server, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file_download, "http_get", full)
        reason = r"cries cannot be kept in the Hub's cache \(No space left on device\): make room there, or name"
        refused(errors.RunError, reason)
    online = snapshots.fetch(NAME, NEWEST)
    monkeypatch.setattr(downloads, "name_commit", full)  # as where a cache may only be read
    assert snapshots.fetch(NAME, NEWEST) == online and "; taken is what the cache has" in capsys.readouterr().err
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    refused(errors.RunError, "cannot be kept in the Hub's cache .Not a directory: .*file/models--someone--cries")


def test_a_whole_part_is_hashed_and_not_asked_for_again(server):
    """As a kill leaves it before it gets its name."""
    weights = server.folders[NAME] / WEIGHTS
    beside = downloads.repository(NAME) / "blobs" / f"{hub.tag(weights)}.part"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(weights.read_bytes())
    assert not snapshots.fetch(NAME, NEWEST).fault and not bodies(server)


def test_what_another_process_fetches_is_waited_for(server):
    weights = server.folders[NAME] / WEIGHTS
    blob = downloads.repository(NAME) / "blobs" / hub.tag(weights)
    blob.parent.mkdir(parents=True)
    with (blob.parent / f"{blob.name}.part").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = threading.Thread(target=downloads.fetch, args=(NAME, WEIGHTS, server.revision(NAME)))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive() and not bodies(server)
        blob.write_bytes(weights.read_bytes())
    waiting.join(30)
    assert not waiting.is_alive() and not bodies(server)


def test_the_token_is_for_the_hub_alone(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert not snapshots.fetch(NAME, NEWEST).fault and server.tokens["pytorch_model.bin"] == "Bearer hf_secret"
    (server.folders[NAME] / WEIGHTS).write_bytes(os.urandom(BYTES))
    server.revisions[NAME] = "1" * 40
    server.elsewhere = f"http://localhost:{server.port}"  # another name, as that of a store of large files
    assert not snapshots.fetch(NAME, NEWEST).fault and server.tokens["pytorch_model.bin"] == ""


def test_redirects_are_followed(server):
    server.faults |= {WEIGHTS: hub.Fault(redirects=3), "config.json": hub.Fault(redirects=2)}
    assert not snapshots.fetch(NAME, NEWEST).fault


def test_a_proxy_is_used(server, monkeypatch):
    with hub.proxy(server) as (address, passed):
        monkeypatch.setenv("HTTP_PROXY", address)
        at(server.url, monkeypatch)
        assert not snapshots.fetch(NAME, NEWEST).fault
    assert all(url.startswith("http://hub.invalid/") for url in passed) and len(passed) == len(server.asked)


def test_offline_each_missing_file_is_named_and_the_cache_is_taken(server, monkeypatch, capsys):
    known = {"config.json": (26, "0" * 64), WEIGHTS: (BYTES, hub.tag(server.folders[NAME] / WEIGHTS))}
    beside = downloads.repository(NAME) / "blobs" / f"{known[WEIGHTS][1]}.part"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(b"x" * 1234)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(snapshots.Absent, "no config.json; no weights .*; HF_HUB_OFFLINE is set")
    reason = r"no config.json \(26 bytes\); no pytorch_model.bin \(50,000 bytes, 1,234 of them here\)"
    refused(snapshots.Absent, reason, pins.Pin("a" * 40, known))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    beside.unlink()
    online = snapshots.fetch(NAME, NEWEST)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert snapshots.fetch(NAME, NEWEST) == snapshots.fetch(NAME, pins.Pin(online.revision)) == online
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    at("http://127.0.0.1:9", monkeypatch)
    assert snapshots.fetch(NAME, NEWEST) == online
    assert "the Hub is out of reach at http://127.0.0.1:9 (ConnectError" in capsys.readouterr().err
    reason = "no weights .*; the Hub is out of reach at http://127.0.0.1:9 .*: connect, or name a mirror by HF_ENDPOINT"
    refused(snapshots.Absent, reason, name="someone/else")


def test_a_damaged_cache_and_other_bytes_than_pinned_are_told(server):
    good = snapshots.fetch(NAME, NEWEST)
    assert snapshots.fetch(NAME, of(good)).files[1].checked == "pinned and the Hub's hash"
    other = pins.Pin("", {WEIGHTS: (BYTES, "0" * 64)})
    assert "where 50,000 and 000000000000... are expected" in snapshots.fetch(NAME, other).fault
    for file in good.files:
        blob = pathlib.Path(os.path.realpath(good.path / file.name))
        data = blob.read_bytes()
        blob.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        fault = snapshots.fetch(NAME, NEWEST).fault
        assert f"{file.name} is damaged" in fault and f"delete {blob} and run again" in fault
        blob.write_bytes(data)


def of(snapshot):
    """The pin that repeats a snapshot."""
    return pins.Pin(snapshot.revision, {file.name: (file.size, file.sha256) for file in snapshot.files})


def test_without_the_package_a_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(snapshots.Absent, r"fetching someone/cries needs huggingface_hub: pip install -e '.*\[hub\]'")
