"""What is downloaded is checked before it counts, and a transfer that stopped goes on where it was."""

import fcntl
import functools
import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections import namedtuple

import numpy as np
import pytest
import soundfile

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import downloads, listings


def _archive(names: list[str], compression: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for k, name in enumerate(names):
            wav = io.BytesIO()
            soundfile.write(wav, (0.5 * np.sin(np.arange(1600) / (5 + k))).astype(np.float32), 16_000, format="WAV")
            archive.writestr(name, wav.getvalue())
    return packed.getvalue()


VIVAE = _archive(["VIVAE/full_set/S01_anger_low_01.wav", "VIVAE/full_set/S02_fear_peak_02.wav"])


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`, honours ranges, and breaks off after `break_after` bytes once or always."""

    files: dict[str, bytes] = {}
    break_after: int | None = None
    ranges: list[str | None] = []
    honours_ranges = True
    always_break = False

    def do_GET(self):
        data = self.files.get(self.path)
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        if data is None:
            self.send_error(404)
            return
        part = asked and self.honours_ranges
        start = int(asked.removeprefix("bytes=").rstrip("-")) if part else 0
        self.send_response(206 if part else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        stop = len(data)
        if self.path == "/vivae" and type(self).break_after is not None:
            stop = start + type(self).break_after
            if not self.always_break:
                type(self).break_after = None
        self.wfile.write(data[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    _Server.files, _Server.break_after, _Server.ranges = {}, None, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        threading.Thread(target=functools.partial(running.serve_forever, 0.01), daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(downloads, "ZENODO", f"{url}/records")
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        _Server.files["/vivae"] = VIVAE
        _record(url, hashlib.md5(VIVAE).hexdigest())
        yield url
        running.shutdown()


def _record(url: str, md5: str, name: str = "VIVAE.zip") -> None:
    entry = {"key": name, "size": len(VIVAE), "checksum": f"md5:{md5}", "links": {"self": f"{url}/vivae"}}
    other = {"key": "README.txt", "size": 1, "checksum": "md5:0", "links": {"self": f"{url}/gone"}}
    _Server.files["/records/4066235"] = json.dumps({"files": [other, entry]}).encode()


def _prepare(tmp_path, **options):
    options = {"data_dir": tmp_path / "d", "workers": 1, "progress": False, "download": True, **options}
    return datasets.prepare("vivae", **options)


def test_a_set_that_is_nowhere_is_downloaded_checked_and_prepared(server, tmp_path):
    prepared = _prepare(tmp_path, manual_dir=tmp_path / "m")
    assert prepared.groups.tolist() == ["S01", "S02"] and (tmp_path / "m" / "VIVAE.zip").read_bytes() == VIVAE
    assert _prepare(tmp_path).fingerprint == prepared.fingerprint
    asked = len(_Server.ranges)
    assert asked == 2 and _prepare(tmp_path, manual_dir=tmp_path / "m", data_dir=tmp_path / "e") and asked == 2


def test_without_a_folder_for_it_the_download_lies_beside_the_sets(server, tmp_path):
    _prepare(tmp_path)
    assert [path.name for path in (tmp_path / "d" / "downloads").iterdir()] == ["VIVAE.zip"]


@pytest.mark.parametrize("there", [0, 100, len(VIVAE)])
def test_a_transfer_that_stopped_goes_on(server, tmp_path, there):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "VIVAE.zip.part").write_bytes(VIVAE[:there])
    _Server.break_after = 1000
    assert len(_prepare(tmp_path, manual_dir=tmp_path / "m")) == 2
    wanted = {0: [None, "bytes=1000-"], 100: ["bytes=100-", "bytes=1100-"], len(VIVAE): []}
    assert _Server.ranges[1:] == wanted[there]


@pytest.mark.parametrize("stale", [b"other bytes", VIVAE + b"more", bytes(len(VIVAE))])
def test_a_part_of_another_file_is_replaced(server, tmp_path, stale):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "VIVAE.zip.part").write_bytes(stale)
    assert len(_prepare(tmp_path, manual_dir=tmp_path / "m")) == 2
    assert _Server.ranges[-1] is None and (tmp_path / "m" / "VIVAE.zip").read_bytes() == VIVAE
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["VIVAE.zip"]


def test_a_transfer_that_breaks_off_again_and_again_is_kept_for_the_next_run(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_Server, "always_break", True)
        _Server.break_after = 100
        with pytest.raises(listings.MissingError, match="vivae cannot be downloaded .*: run again to go on"):
            _prepare(tmp_path, manual_dir=tmp_path / "m")
    assert _Server.ranges[1:] == [None, "bytes=100-", "bytes=200-", "bytes=300-"]
    assert (tmp_path / "m" / "VIVAE.zip.part").read_bytes() == VIVAE[:400]
    _Server.break_after = None
    assert len(_prepare(tmp_path, manual_dir=tmp_path / "m")) == 2 and _Server.ranges[-1] == "bytes=400-"


def test_two_downloads_of_one_file_at_once_are_refused(server, tmp_path):
    (tmp_path / "m").mkdir()
    with (tmp_path / "m" / "VIVAE.zip.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(listings.MissingError, match="VIVAE.zip.part is being downloaded by another process"):
            _prepare(tmp_path, manual_dir=tmp_path / "m")
    assert len(_prepare(tmp_path, manual_dir=tmp_path / "m")) == 2


def test_a_server_that_cannot_go_on_starts_over(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_Server, "honours_ranges", False)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "VIVAE.zip.part").write_bytes(b"other bytes")
    assert len(_prepare(tmp_path, manual_dir=tmp_path / "m")) == 2


def test_a_wrong_checksum_is_named_and_leaves_nothing(server, tmp_path):
    _record(server, "0" * 32)
    with pytest.raises(
        listings.MissingError, match=f"gave md5:{hashlib.md5(VIVAE).hexdigest()} and not md5:0000"
    ) as info:
        _prepare(tmp_path, manual_dir=tmp_path / "m")
    assert "get it from https://zenodo.org/records/4066235 (licence: CC BY-NC 4.0)" in str(info.value)
    assert not list((tmp_path / "m").iterdir())


@pytest.mark.parametrize(
    "file, data, sentence",
    [
        ("/records/4066235", None, "records/4066235 does not list its files .*404"),
        ("/records/4066235", b"{}", "does not list its files .'files'"),
        ("/vivae", None, "vivae cannot be downloaded .*404"),
    ],
)
def test_a_link_that_fails_is_named_with_where_to_get_the_set(server, tmp_path, file, data, sentence):
    _Server.files[file] = data
    with pytest.raises(listings.MissingError, match=f"{sentence}.*get it from https://zenodo.org/records/4066235"):
        _prepare(tmp_path, manual_dir=tmp_path / "m")
    assert not list(tmp_path.rglob("VIVAE*")) and len(_Server.ranges) == 1 + (file == "/vivae")


def test_without_a_network_the_error_says_where_to_get_the_set(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "ZENODO", "http://127.0.0.1:1/records")
    with pytest.raises(
        listings.MissingError, match="does not list its files .*refused.*get it from https://zenodo.org"
    ):
        _prepare(tmp_path)


def test_a_record_that_has_changed_is_named(server, tmp_path):
    _record(server, "0" * 32, "renamed.zip")
    with pytest.raises(listings.MissingError, match="has no file like vivae.*zip: its record has changed"):
        _prepare(tmp_path)


def test_a_download_that_does_not_fit_is_refused_before_it_begins(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: usage(0, 0, 10))
    with pytest.raises(listings.MissingError, match="GB free and the download takes"):
        _prepare(tmp_path, manual_dir=tmp_path / "m")
    assert _Server.ranges == [None]


def test_nothing_is_downloaded_unasked_or_without_a_link(server, tmp_path):
    with pytest.raises(listings.MissingError, match="it is not in"):
        (tmp_path / "m").mkdir()
        _prepare(tmp_path, manual_dir=tmp_path / "m", download=False)
    with pytest.raises(listings.MissingError, match="no --manual_dir was given"):
        datasets.prepare("nnime", data_dir=tmp_path / "d", download=True)
    assert _Server.ranges == []


def test_an_archive_packed_anew_is_checked_by_its_recordings(server, tmp_path):
    names = ["x-main/data/voices/b.wav", "x-main/data/voices/a.wav"]
    _Server.files["/zip"] = _archive(names)
    path = tmp_path / "packed.zip"
    path.write_bytes(_archive(["other root/data/voices/b.wav", names[1], "x/readme.txt"], zipfile.ZIP_DEFLATED))
    digest = downloads.contents_digest(path, "data/voices")
    good = downloads.Remote(file=downloads.File(f"{server}/zip", "a.zip"), contents=digest, root="data/voices")
    assert downloads.fetch(good, tmp_path / "good", False) == [tmp_path / "good" / "a.zip"]
    with pytest.raises(errors.RunError, match="gave recordings with the digest .* and not 00"):
        downloads.fetch(good._replace(contents="00"), tmp_path / "bad", False)
    _Server.files["/zip"] = b"<html>"
    with pytest.raises(errors.RunError, match="gave 6 bytes that are not a zip archive"):
        downloads.fetch(good, tmp_path / "html", False)


def test_every_link_of_the_catalogue_says_how_it_is_checked():
    for source in datasets.CATALOG.values():
        if source.remote:
            remote = source.remote
            assert bool(remote.record) != bool(remote.file)
            assert remote.wanted if remote.record else len(remote.contents) == 64 and remote.root in source.holds
            assert str(remote.record or "github.com") in source.url
