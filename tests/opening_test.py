"""Files are opened in one place, which refuses pipes, sockets and devices without waiting for them."""

import ast
import os
import pathlib
import pickle
import re
import socket

import pytest

from voc2vec_jax import errors, opening

LIBRARY = pathlib.Path(opening.__file__).parent
# What reads a file by its path: methods of paths, and functions that take one first.
METHODS = {"read_text", "read_bytes"}
LIBRARIES = {"np.load", "pq.ParquetFile", "pq.read_table", "pq.read_metadata", "safetensors.safe_open"}
LIBRARIES |= {"zipfile.ZipFile", "tarfile.open", "gzip.open", "np.memmap", "np.fromfile"}
SUSPECT = r"open\(|read_(text|bytes)\(|np\.(load|memmap|fromfile)|pq\.|ZipFile\("


@pytest.fixture
def places(tmp_path):
    """A path of every kind, by name."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "file").write_bytes(b'{"a": 1}\r\n')
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # an address of a socket has room for 107 letters
        server.bind("socket")
        os.chdir(here)
        yield {name: tmp_path / name for name in ("pipe", "socket", "link", "file")}


@pytest.mark.parametrize("read", [opening.regular, opening.checked, opening.read_text, opening.read_json])
@pytest.mark.parametrize("name, kind", [("pipe", "a pipe"), ("socket", "a socket"), ("link", "a device")])
def test_only_files_are_opened(places, name, kind, read):
    with pytest.raises(opening.NoFileError) as caught:
        read(places[name])
    assert str(caught.value) == f"{places[name]} is {kind} and no file: give a file"
    assert isinstance(caught.value, errors.InputError) and caught.value.strerror == f"it is {kind} and no file"
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes from another process
    assert (str(again), again.strerror) == (str(caught.value), caught.value.strerror)


def test_a_pipe_that_takes_the_place_of_a_file_is_refused(places, monkeypatch):
    monkeypatch.setattr(opening, "checked", lambda path: path)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(opening.NoFileError, match="is a pipe and no file"):
        opening.regular(places["pipe"])
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_are_read_as_before(places, tmp_path):
    with opening.regular(places["file"]) as file:
        assert file.read() == b'{"a": 1}\r\n' and os.get_blocking(file.fileno())
    assert opening.read_text(places["file"]) == '{"a": 1}\n' and opening.read_json(places["file"]) == {"a": 1}
    assert opening.read_text("/proc/self/stat")  # which says that it has no bytes
    with pytest.raises(IsADirectoryError):
        opening.regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        opening.read_bytes(tmp_path / "none")


def test_what_is_read_whole_has_a_limit(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(opening.LongFileError, match="has 1,099,511,627,776 bytes, and 268,435,456 are read at most"):
        opening.read_json(tmp_path / "sparse")
    (tmp_path / "deep").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        opening.read_json(tmp_path / "deep")


def reads(path):
    """(line, text) of every call in a module that opens a file for reading, but through `opening`."""
    text = path.read_text()
    for node in ast.walk(ast.parse(text)) if re.search(SUSPECT, text) else ():
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        by_method = isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
        opens = called == "open" or (isinstance(node.func, ast.Attribute) and node.func.attr == "open")
        modes = [each.value for arg in node.args for each in ast.walk(arg) if isinstance(each, ast.Constant)]
        given = ast.unparse(node.args[0]) if node.args else ""
        if called.startswith("opening.") or given.startswith(("opening.", "io.BytesIO(")):
            continue
        writes = any(isinstance(mode, str) and set(mode) & set("wax+") for mode in modes) or "mode" in map(
            ast.unparse, node.args
        )
        if by_method or called in LIBRARIES and not writes or opens and not writes and called not in NOT_OF_FILES:
            yield node.lineno, ast.unparse(node)


NOT_OF_FILES = {"os.open", "opener.open", "self._av.open", "self.open", "archive.open", "self._archive.open"}
NOT_OF_FILES |= {"Image.open", "tarfile.open", "gzip.open"}  # of what is open, or in LIBRARIES


def test_no_module_opens_files_by_itself():
    open_files = {"zipfile.ZipFile(file)", "gzip.open(source)", "tarfile.open(fileobj=_Headers(file), mode='r:')"}
    open_files |= {"np.load(mine)", "np.load(theirs)"}  # whose paths are checked
    found = {
        f"{path.relative_to(LIBRARY)}:{line} {text}"
        for path in LIBRARY.rglob("*.py")
        if path.name != "opening.py"
        for line, text in reads(path)
        if text not in open_files
    }
    assert not found
