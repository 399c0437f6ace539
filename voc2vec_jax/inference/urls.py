"""Recordings on the web: fetched into a file without a name, of bounded size and in bounded time."""

import contextlib
import http.client
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from voc2vec_jax import audio

MOST_BYTES = 256 << 20
SILENT_SECONDS = 30.0  # for which a server may send nothing
MOST_SECONDS = 600.0  # for the whole of a recording
CHUNK_BYTES = 1 << 16
SCHEMES = ("http", "https")


class Url(str):
    """The address of a recording."""

    @property
    def shown(self) -> str:
        """The address without what may be secret in it: a password, or a signature in the query."""
        try:
            parts = urllib.parse.urlsplit(self)
        except ValueError:  # such as a bracket without its other half
            return self.partition("?")[0].rpartition("@")[2]
        host = parts.netloc.rpartition("@")[2]
        return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))


def is_url(text: Any) -> bool:
    """Whether this names a place on the web and no file."""
    return isinstance(text, str) and text.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def other_scheme(text: Any) -> str | None:
    """The scheme of an address that is not fetched, such as file or s3; None for a path."""
    scheme, mark, _ = str(text).partition("://")
    return scheme if mark and scheme.isalnum() and scheme.lower() not in SCHEMES else None


class _OnTheWeb(urllib.request.HTTPRedirectHandler):
    """Follows a server to other servers, and to nothing else (urllib would follow to ftp too)."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not is_url(newurl):
            raise urllib.error.URLError(f"it leads to {newurl.partition(':')[0]}, and http or https is needed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def fetched(url: Url) -> Iterator[Any]:
    """An open file with what stands at an address. AudioError if it cannot be had within the limits."""
    with tempfile.TemporaryFile() as file:
        try:
            _fetch(url, file)
        except urllib.error.HTTPError as fault:
            raise audio.AudioError(url.shown, f"the server answers {fault.code} {fault.reason}") from fault
        except http.client.IncompleteRead as fault:
            raise audio.AudioError(url.shown, "cannot be fetched (the server broke off: try again)") from fault
        except http.client.InvalidURL as fault:
            raise audio.AudioError(url.shown, "is no address: a host, its port or a sign in it cannot be") from fault
        except http.client.HTTPException as fault:
            raise audio.AudioError(url.shown, f"is no web server's ({type(fault).__name__})") from fault
        except (OSError, ValueError) as fault:
            reason = getattr(fault, "reason", None) or fault
            raise audio.AudioError(url.shown, f"cannot be fetched ({reason})") from fault
        file.seek(0)
        yield file


def _fetch(url: Url, file: Any) -> None:
    if "@" in urllib.parse.urlsplit(url).netloc:  # which urllib would take for a port, and repeat
        raise OSError("it holds a password: fetch it yourself and give the file")
    request = urllib.request.Request(_quoted(url), headers={"User-Agent": "voc2vec_jax", "Accept": "audio/*, */*"})
    ends = time.monotonic() + MOST_SECONDS
    opener = urllib.request.build_opener(_OnTheWeb)
    with opener.open(request, timeout=SILENT_SECONDS) as answer:
        said = answer.headers.get("Content-Length", "")
        announced, got = int(said) if said.isdigit() else 0, 0
        _check_size(announced)
        while chunk := answer.read1(CHUNK_BYTES):
            got += len(chunk)
            _check_size(got)
            if time.monotonic() > ends:
                raise OSError(f"it took more than {MOST_SECONDS:g} s: fetch it yourself and give the file")
            file.write(chunk)
    if got < announced:
        raise OSError(f"the server sent {got:,} of {announced:,} bytes: try again")


def _quoted(url: str) -> str:
    """The address as a server takes it: as browsers do, with spaces and letters beyond ASCII in its path as %xx."""
    parts = urllib.parse.urlsplit(url)
    path, query = (urllib.parse.quote(part, safe="/%:@!$&'()*+,;=~?") for part in (parts.path, parts.query))
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.encode("idna").decode(), path, query, ""))


def _check_size(size_bytes: int) -> None:
    if size_bytes > MOST_BYTES:
        raise OSError(f"it is larger than {MOST_BYTES >> 20} MiB: fetch it yourself and give the file")
