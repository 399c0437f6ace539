"""A Hub on this machine that serves folders over HTTP, with the faults of real networks, and a proxy before it.

It answers what `huggingface_hub` asks when it reads: a repository's files, its tree, HEAD and GET of files with ranges.
Weights are answered as the real one answers large files: by a redirect, with their SHA-256 as the tag.

    with hub.running({"someone/cries": folder}) as server:
        server.faults["pytorch_model.bin"] = hub.Fault(cut=1000)
        subprocess.run(..., env=server.environment(tmp_path))
"""

import contextlib
import dataclasses
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Mapping

LARGE = (".bin", ".safetensors", ".pt")


@dataclasses.dataclass
class Fault:
    """What happens to the requests for a file, or for a whole repository by its name.

    `status`: answered instead; `cut`: the connection closes after so many bytes of the body; `flip`: the byte at this
    place is another; `redirects`: that many hops more. `times` requests meet it, None: all.
    """

    status: int = 0
    cut: int | None = None
    flip: int | None = None
    redirects: int = 0
    times: int | None = None


class Hub:
    """`folders`: owner/name to its folder; `faults`: by file or repository; `asked`: (method, path, range or "").

    `tokens`: what the latest GET of a file was authorised by; `elsewhere`: by what address large files are served.
    """

    def __init__(self, folders: Mapping[str, pathlib.Path]):
        self.folders, self.url, self.port = dict(folders), "", 0
        self.faults: dict[str, Fault] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.revisions: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.elsewhere = ""

    def revision(self, name: str) -> str:
        """The only commit of a repository."""
        return self.revisions.get(name) or hashlib.sha1(name.encode()).hexdigest()

    def environment(self, home: pathlib.Path, **more: str) -> dict[str, str]:
        """The variables of a process that takes this for the Hub, with an empty cache in `home`."""
        plain = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")}
        return plain | {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | more

    def met(self, head: bool, *names: str) -> Fault | None:
        """The fault that a request meets; HEAD, which has no body, meets none of the body's."""
        for name in names:
            fault = self.faults.get(name)
            of_body = fault is not None and (fault.cut is not None or fault.flip is not None)
            if fault is not None and fault.times != 0 and not (head and of_body):
                fault.times = None if fault.times is None else fault.times - 1
                return fault
        return None


def tag(path: pathlib.Path) -> str:
    """What the Hub calls a file by: its SHA-256 if it is large, else git's hash of it."""
    data = path.read_bytes()
    if path.suffix in LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        parts = path.strip("/").split("/")
        if self.command == "GET":
            self.hub.tokens[parts[-1]] = self.headers.get("Authorization", "")
        listing = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if listing or parts[0] == "large" else parts[:2])
        folder, commit = self.hub.folders.get(name), self.hub.revision(name)
        fault = self.hub.met(self.command == "HEAD", name, parts[-1])
        if fault and fault.status:
            return self.refuse(fault.status)
        if folder is None:
            return self.refuse(404, "RepoNotFound")
        asked = parts[5] if listing and len(parts) > 5 else commit if listing else parts[3] if len(parts) > 3 else ""
        if parts[0] != "large" and asked not in (commit, "main"):
            return self.refuse(404, "RevisionNotFound")
        if listing:
            return self.listed(name, folder, commit, "tree" in parts)
        file = folder / parts[-1]
        if not file.is_file():
            return self.refuse(404, "EntryNotFound")
        return self.content(file, name, commit, parts, fault)

    def refuse(self, status: int, code: str = ""):
        text = b"Invalid username or password." if status == 401 else b"not here"
        self.answer(status, text, {"X-Error-Code": code} if code else {})

    def listed(self, name: str, folder: pathlib.Path, commit: str, tree: bool):
        files = sorted(path for path in folder.iterdir() if path.is_file())
        rows = []
        for path in files if tree else ():
            size, large = path.stat().st_size, path.suffix in LARGE
            row = {"type": "file", "path": path.name, "size": size, "oid": hashlib.sha1(tag(path).encode()).hexdigest()}
            rows.append(row | ({"lfs": {"oid": tag(path), "size": size, "pointerSize": 134}} if large else {}))
            if not large:
                row["oid"] = tag(path)
        whole = {"id": name, "sha": commit, "siblings": [{"rfilename": path.name} for path in files]}
        self.answer(200, json.dumps(rows if tree else whole).encode(), {"Content-Type": "application/json"})

    def content(self, file: pathlib.Path, name: str, commit: str, parts: list[str], fault: Fault | None):
        hops = int(parts[1]) if parts[0] == "large" else (file.suffix in LARGE) + (fault.redirects if fault else 0)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{tag(file)}"', "Accept-Ranges": "bytes"}
        if hops:
            size = str(file.stat().st_size)
            there = f"{self.hub.elsewhere or self.hub.url}/large/{hops - 1}/{name}/{file.name}"
            large = {"X-Linked-Size": size, "X-Linked-Etag": f'"{tag(file)}"'} if file.suffix in LARGE else {}
            return self.answer(302, b"", headers | {"Location": there} | large)
        data, status = file.read_bytes(), 200
        if fault and fault.flip is not None:
            data = data[: fault.flip] + bytes([data[fault.flip] ^ 1]) + data[fault.flip + 1 :]
        if asked := self.headers.get("Range", ""):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        return self.answer(status, data, headers, fault.cut if fault else None)

    def answer(self, status: int, data: bytes, headers: Mapping[str, str], cut: int | None = None):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(data if cut is None else data[:cut])
        if cut is not None and cut < len(data):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


@contextlib.contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """Its port, until the end of the block."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # a client that was killed is no fault of ours
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def running(folders: Mapping[str, pathlib.Path]) -> Iterator[Hub]:
    """The Hub with these repositories."""
    hub = Hub(folders)
    with _serving(type("Handler", (_Handler,), {"hub": hub})) as hub.port:
        hub.url = f"http://127.0.0.1:{hub.port}"
        yield hub


@contextlib.contextmanager
def proxy(hub: Hub) -> Iterator[tuple[str, list[str]]]:
    """(address, requests that passed) of a proxy; through it `http://hub.invalid` is `hub`, and nothing else is there.

    The Hub calls itself by that name until the end of the block.
    """
    passed: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            parts = urllib.parse.urlparse(self.path)
            passed.append(self.path)
            connection = http.client.HTTPConnection("127.0.0.1", hub.port)
            kept = {key: value for key, value in self.headers.items() if key.lower() in ("range", "accept")}
            connection.request(self.command, parts.path + (f"?{parts.query}" if parts.query else ""), headers=kept)
            answer = connection.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in ("server", "date"):
                    self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)
            connection.close()

    own, hub.url = hub.url, "http://hub.invalid"
    try:
        with _serving(Handler) as port:
            yield f"http://127.0.0.1:{port}", passed
    finally:
        hub.url = own
