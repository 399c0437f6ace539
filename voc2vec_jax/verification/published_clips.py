"""The recordings that public test suites name: in a folder of the user, else fetched and checked against their hash."""

import functools
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.inference import urls
from voc2vec_jax.runs import extras
from voc2vec_jax.verification import published_numbers as numbers

ROUNDED_S = 0.0051  # published lengths are rounded to a hundredth of a second


class Missing(Exception):
    """A file that is needed is neither here nor to be had; the text says why, without a full stop."""


class Recordings:
    """Finds files by their names, in `folder` and below; without it, or what is not there, on the web."""

    def __init__(self, folder: Path | None):
        if folder is not None and not folder.is_dir():
            raise errors.InputError(f"--recordings={folder} is not a folder; give the one that holds the recordings")
        self._folder = folder
        self._clips: dict[numbers.Clip, Any] = {}

    @functools.cached_property
    def _here(self) -> dict[str, Path]:
        """The files of the folder by name; of those with the same name, the first."""
        found: dict[str, Path] = {}
        for place, folders, names in os.walk(self._folder) if self._folder else ():
            folders.sort()
            for name in names:
                found.setdefault(name, Path(place) / name)
        return found

    def clip(self, clip: numbers.Clip) -> Float32[np.ndarray, " s"]:
        """The samples of a recording at 16 kHz. Missing if it cannot be had, or is not as long as it should be."""
        if clip not in self._clips:
            self._clips[clip] = self._read(clip)
        return self._clips[clip]

    def _read(self, clip: numbers.Clip) -> Float32[np.ndarray, " s"]:
        path = next((self._here[n] for s in audio.SUFFIXES if (n := clip.stem + s) in self._here), None)
        try:
            if path is not None:
                samples = audio.load(path)
            elif clip.address.startswith("datasets/"):
                samples = audio.load(io.BytesIO(_of_table(clip.stem)))
            else:
                samples = audio.load(io.BytesIO(_fetched(clip.address, clip.sha256)))
        except audio.AudioError as fault:
            raise Missing(str(fault)) from fault
        seconds = len(samples) / audio.RATE_HZ
        if abs(seconds - clip.seconds) > ROUNDED_S:
            raise Missing(f"{path or clip.address} has {seconds:.2f} s, and {clip.stem} has {clip.seconds:.2f} s")
        return samples

    def array(self, name: str, shape: tuple[int, ...], address: str = "", sha256: str = "") -> np.ndarray:
        """The array of a .npy file of this shape. Missing if it cannot be had, or has another shape."""
        path = self._here.get(name)
        if path is None and not address:
            raise Missing(f"{name} is not among the recordings")
        try:
            if path is None:
                found = np.load(io.BytesIO(_fetched(address, sha256)), allow_pickle=False)
            else:  # mapped, so that the shape is known before memory is taken for it
                found = np.load(opening.checked(path), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as fault:
            raise Missing(f"{path or address} cannot be read as an array ({fault})") from fault
        if not isinstance(found, np.ndarray):
            raise Missing(f"{path or address} is an archive of arrays, and one array is needed")
        if found.shape != shape or found.dtype.kind != "f":
            raise Missing(f"{path or address} holds {found.dtype}{found.shape}, and floats of {shape} are needed")
        return np.array(found)


def _fetched(address: str, sha256: str) -> bytes:
    """What stands at an address. Missing if it is out of reach or another file."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise Missing(f"HF_HUB_OFFLINE is set, and {address} is not among the recordings: give --recordings")
    try:
        with urls.fetched(urls.Url(address)) as file:
            data = file.read()
    except audio.AudioError as fault:
        raise Missing(f"{fault}; give a folder with it as --recordings") from fault
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Missing(f"{address} is another file than that of the test suite (its hash differs)")
    return data


@functools.cache
def _table() -> dict[str, bytes]:
    """The audio files of the suite's table by the stem of their names."""
    try:
        import huggingface_hub
        import pyarrow.parquet
    except ImportError as fault:
        raise Missing(
            f"{numbers.TABLE} is a table, which needs {fault.name}: pip install pyarrow and "
            f"{extras.command('hub')}, or give a folder with LibriSpeech's dev-clean as --recordings"
        ) from None
    try:
        path = huggingface_hub.hf_hub_download(
            numbers.TABLE, numbers.TABLE_FILE, repo_type="dataset", revision=numbers.TABLE_REVISION
        )
    except Exception as fault:  # of requests, httpx or httpx2, by the version of huggingface_hub
        raise Missing(
            f"{numbers.TABLE} cannot be fetched ({type(fault).__name__}); give a folder with LibriSpeech's dev-clean "
            "as --recordings"
        ) from fault
    data = opening.read_bytes(path)
    if hashlib.sha256(data).hexdigest() != numbers.TABLE_SHA256:
        raise Missing(f"{path} is another file than that of the test suite (its hash differs)")
    # The reader of one file, without threads that could outlive the interpreter
    table = pyarrow.parquet.ParquetFile(io.BytesIO(data)).read(columns=["id", "audio"], use_threads=False)
    rows = table.to_pylist()
    return {row["id"]: row["audio"]["bytes"] for row in rows}


def _of_table(stem: str) -> bytes:
    found = _table().get(stem)
    if found is None:
        raise Missing(f"{numbers.TABLE} has no {stem}")
    return found
