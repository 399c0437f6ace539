"""Recordings on the web are those in files, and a server can neither fill the memory nor hold up for ever."""

import http.server
import io
import threading
import time

import numpy as np
import pytest
import soundfile

from voc2vec_jax import audio
from voc2vec_jax.inference import items, loading, urls

SAMPLES = np.random.default_rng(0).integers(-9000, 9000, 8_000, dtype=np.int16)


def wav():
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, 16_000, format="WAV")
    return file.getvalue()


ODD = {
    "/noise": b"\x00\x01\r\n",
    "/many": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    "/broken": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nabc",
}


class Server(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/to":
            return self.head(302, Location="/a.wav")
        if path == "/to_a_file":
            return self.head(302, Location="file:///etc/hostname")
        if path == "/to_ftp":
            return self.head(302, Location="ftp://127.0.0.1/a.wav")
        if path in ODD:
            return self.wfile.write(ODD[path])
        if path not in ("/a.wav", "/a%20%C3%BC.wav", "/endless", "/slow", "/short", "/large"):
            return self.send_error(404)
        path = "/a.wav" if path == "/a%20%C3%BC.wav" else path
        content = {"/large": "99999999999", "/short": "999999", "/a.wav": str(len(wav()))}.get(path)
        self.head(200, **({"Content-Length": content} if content else {}))
        if path in ("/a.wav", "/short"):
            self.wfile.write(wav())
        for _ in range(250 if path in ("/endless", "/slow") else 0):
            try:
                self.wfile.write(bytes(1 << 16 if path == "/endless" else 10))
            except OSError:
                return None
            if path == "/slow":
                time.sleep(0.02)
        return None

    def head(self, code, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def load(address):
    (item,), (name,) = items.listed(address)
    return loading.load(0, item, 1), name


@pytest.mark.parametrize("path", ["/a.wav", "/to", "/a ü.wav", "/a%20%C3%BC.wav"])
def test_a_recording_on_the_web_is_that_in_a_file(path, address):
    found, name = load(address + path)
    np.testing.assert_array_equal(found, audio.from_int16(SAMPLES))
    assert name == address + path


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/none.wav", "the server answers 404 Not Found"),
        ("/large", "it is larger than 0 MiB: fetch it yourself and give the file"),
        ("/endless", "it is larger than 0 MiB: fetch it yourself"),
        ("/slow", "it took more than 0.2 s: fetch it yourself"),
        ("/short", "the server sent 16,044 of 999,999 bytes: try again"),
        ("/noise", r"is no web server's \(BadStatusLine\)"),
        ("/many", r"is no web server's \(HTTPException\)"),
        ("/broken", "the server broke off: try again"),
        ("/to_a_file", "not allowed|and http or https is needed"),
        ("/to_ftp", "it leads to ftp, and http or https is needed"),
    ],
)
def test_what_cannot_be_had_within_the_limits_is_named(path, sentence, address, monkeypatch):
    monkeypatch.setattr(urls, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(urls, "MOST_SECONDS", 0.2 if path == "/slow" else 60.0)
    with pytest.raises(audio.AudioError, match=sentence):
        load(address + path)


@pytest.mark.parametrize(("user", "why"), [("", ".*refused"), ("me:word@", "it holds a password: fetch it yourself")])
def test_what_may_be_secret_in_an_address_is_not_repeated(user, why):
    with pytest.raises(audio.AudioError, match=rf"^http://127.0.0.1:9/a.wav: cannot be fetched \({why}") as fault:
        load(f"http://{user}127.0.0.1:9/a.wav?signature=abc")
    assert "me:" not in str(fault.value) and "abc" not in str(fault.value)


@pytest.mark.parametrize("wrong", ["http://a:b/c.wav", "http://[::1", "http://x\ny/", f"http://{'a' * 300}.org/"])
def test_an_address_that_cannot_be_is_one_of_a_recording_that_cannot_be_had(wrong):
    with pytest.raises(audio.AudioError, match="is no address|cannot be fetched"):
        load(wrong)


def test_what_is_no_address_is_a_path():
    assert items.listed(["a:/b.wav", "a//b.wav", "./a://b.wav"])[0] == ["a:/b.wav", "a//b.wav", "./a://b.wav"]
    assert isinstance(items.listed(["HTTPS://a/b.wav"])[0][0], urls.Url)
