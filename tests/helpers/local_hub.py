"""A Hub on this machine: repositories in memory, behind the HTTP calls that huggingface_hub makes."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalHub:
    """`repositories`: owner/name to its files; `created`: what was asked for when each was made."""

    def __init__(self, refused: bool = False):
        self.refused, self.url = refused, ""
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.created: dict[str, dict] = {}
        self.tokens: list[str | None] = []
        self.validated: list[str] = []  # cards

    def is_private(self, name: str) -> bool:
        """As versions of huggingface_hub ask for it."""
        asked = self.created[name]
        return asked.get("private") is True or asked.get("visibility") == "private"

    def post(self, path: str, body: bytes) -> dict | None:
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.repositories.setdefault(name, {})
            self.created[name] = asked
            return {"url": f"{self.url}/{name}", "id": name}
        if path == "/api/validate-yaml":
            self.validated.append(json.loads(body)["content"])
            return {"errors": [], "warnings": []}
        name = "/".join(parts[2:4])
        if name not in self.repositories:
            return None
        if parts[4] == "preupload":
            names = [each["path"] for each in json.loads(body)["files"]]
            return {"files": [{"path": each, "uploadMode": "regular", "shouldIgnore": False} for each in names]}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return {"commitUrl": f"{self.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}

    def get(self, path: str) -> tuple[bytes, dict[str, str]] | None:
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            if name not in self.repositories:
                return None
            files = [{"rfilename": each} for each in self.repositories[name]]
            if "tree" in parts:
                files = [
                    {"type": "file", "path": each, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for each, data in self.repositories[name].items()
                ]
                return json.dumps(files).encode(), {}
            return json.dumps({"id": name, "sha": COMMIT, "siblings": files}).encode(), {}
        data = self.repositories.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
        if data is None:
            return None
        return data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}


@contextlib.contextmanager
def running(refused: bool = False) -> Iterator[LocalHub]:
    """The Hub, until the end of the block; `refused`: every call is answered with 401."""
    hub = LocalHub(refused)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, found, headers=(), head=False):
            status = 401 if hub.refused else 404 if found is None else 200
            data = found if found is not None and not hub.refused else b"{}"
            self.send_response(status)
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if not head:
                self.wfile.write(data)

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.tokens.append(self.headers.get("Authorization"))
            found = None if hub.refused else hub.post(urllib.parse.urlparse(self.path).path, body)
            self.answer(None if found is None else json.dumps(found).encode(), {"Content-Type": "application/json"})

        def do_GET(self, head=False):
            found = hub.get(urllib.parse.unquote(urllib.parse.urlparse(self.path).path))
            self.answer(*(found or (None,)), head=head)

        def do_HEAD(self):
            self.do_GET(head=True)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
