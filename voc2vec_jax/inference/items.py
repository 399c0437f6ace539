"""What `embed` and `predict` may be given, as one list of items in a few forms.

An item is one recording. `listed` gives each as
    str                           a path
    urls.Url                      an address on the web
    open_files.OpenFile           an open binary file or its bytes
    np.ndarray                    samples whose rate was not said
    (np.ndarray, rate_hz)         samples at a rate
"""

import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import folders, loading, open_files, urls

FORMS = "a path, an array, (array, rate_hz), an open file, a URL or a dict of Hugging Face"
_ARRAY, _BYTES, _PATH, _RATE = ("array", "raw"), "bytes", "path", "sampling_rate"  # keys of Hugging Face's dicts
_NESTED = "audio"  # the column of a data set's row that holds such a dict


class Windows(Sequence):
    """Stretches of recordings as items of a list, made by `stretches.windows`; `names` has (file, start, end) of each.

    Times are in seconds.
    """

    def __init__(self, items: Sequence[tuple[np.ndarray, int]], names: Sequence[tuple[str, float, float]]):
        self._items, self.names = list(items), list(names)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]


def listed(given: Any, sampling_rate: Any = None) -> tuple[list[Any], list[Any]]:
    """The items that `given` holds, and the name of each: its path or address, else `item 3`.

    One recording in any form is a list of one, a folder is the recordings in it, sorted, and an array [b, s] is b
    items. `Windows` are named by (file, start, end). `sampling_rate` (Hz) is that of arrays that come without one.
    InputError names what cannot be an item.
    """
    rate = None if sampling_rate is None else _rate(sampling_rate, "sampling_rate is")
    items, names, opened = [], [], {}
    for index, one in enumerate(_several(given)):
        items.append(_item(f"item {index}", one, rate, opened))
        names.append(_name(index, one, items[-1]))
    if not items:
        raise errors.InputError("items is empty: give at least one path or array")
    return items, given.names if isinstance(given, Windows) else names


def _several(given: Any) -> Iterable[Any]:
    if isinstance(given, str | os.PathLike):
        path = "" if urls.is_url(given) else os.path.expanduser(given)
        return folders.recordings(Path(path)) if path and os.path.isdir(path) else [given]
    if _is_one(given):
        return [given]
    if hasattr(given, "columns"):
        raise errors.InputError(f"items is a {type(given).__name__}: give its column of files, such as items['file']")
    if hasattr(given, "to_list"):  # a Series or Index of pandas
        return given.to_list()
    if _is_array(given):
        return _of_array(given)
    if isinstance(given, set | frozenset):
        raise errors.InputError("items is a set, which has no order: give a list, such as sorted(items)")
    if not isinstance(given, Iterable) and not hasattr(given, "__getitem__"):
        raise errors.InputError(f"items is a {type(given).__name__}: give {FORMS}, or a list of them")
    return list(given)


def _of_array(given: Any) -> list[Any]:
    shape = tuple(given.shape)
    if len(shape) == 1:
        return given.tolist() if getattr(given.dtype, "kind", "f") in "OUST" else [given]
    if len(shape) == 2:
        return list(as_numpy(given))
    raise errors.InputError(f"items has shape {shape}: give [samples], [batch, samples] or a list of arrays")


def _is_one(given: Any) -> bool:
    """Whether something that is no array is one recording."""
    is_file = isinstance(given, bytes | bytearray | memoryview) or hasattr(given, "read")
    return is_file or isinstance(given, Mapping) or hasattr(given, "get_all_samples") or _is_pair(given)


def _is_array(given: Any) -> bool:
    return hasattr(given, "shape") and hasattr(given, "dtype")


def _is_pair(given: Any) -> bool:
    """Whether this is (array, rate) or (rate, array)."""
    if not isinstance(given, tuple) or len(given) != 2:
        return False
    return sum(map(_is_samples, given)) == 1 and any(map(_is_number, given))


def _is_samples(part: Any) -> bool:
    return _is_array(part) and len(part.shape) > 0


def _is_number(part: Any) -> bool:
    return isinstance(part, int | float) and not isinstance(part, bool) or (_is_array(part) and not len(part.shape))


def _is_missing(one: Any) -> bool:
    """Whether this is what stands for nothing: None, NaN, or pandas' NA and NaT."""
    return one is None or (isinstance(one, float) and math.isnan(one)) or type(one).__name__ in ("NAType", "NaTType")


def _item(place: str, one: Any, rate: int | None, opened: dict[int, open_files.OpenFile]) -> Any:
    """One recording in a form of this module; `opened` holds the files met before, by identity."""
    if isinstance(one, str | os.PathLike):
        if urls.is_url(one):
            return urls.Url(os.fspath(one))
        if not os.fspath(one):
            raise errors.InputError(f"{place} is an empty path: leave it out")
        if other := urls.other_scheme(one):
            raise errors.InputError(
                f"{place} is an address of {other}, and those of http and https are fetched: fetch it yourself and "
                "give the file"
            )
        return os.path.expanduser(os.fspath(one))
    if isinstance(one, bytes | bytearray | memoryview):
        return open_files.OpenFile(io.BytesIO(one), place)
    if hasattr(one, "read"):
        if id(one) not in opened:
            opened[id(one)] = _open_file(place, one)
        return opened[id(one)]
    if isinstance(one, Mapping):
        return _of_mapping(place, one, rate, opened)
    if hasattr(one, "get_all_samples"):  # torchcodec's decoder, as the library datasets gives it
        samples = one.get_all_samples()
        mono = audio.mix_down(np.atleast_2d(as_numpy(samples.data)).T.astype(np.float32))
        return _checked(place, mono, _rate(samples.sample_rate, f"{place} has the rate"))
    if isinstance(one, tuple) and len(one) == 2:
        array, own = one if _is_samples(one[0]) or not _is_samples(one[1]) else one[::-1]
        return _checked(place, array, _rate(own, f"{place} has the rate"))
    return _checked(place, one, rate)


def _of_mapping(place: str, one: Mapping, rate: int | None, opened: dict[int, open_files.OpenFile]) -> Any:
    """A dict of Hugging Face: an array and its rate, else the bytes of a file, else its path."""
    for key in _ARRAY:
        if one.get(key) is not None:
            own = one.get(_RATE)
            own = rate if own is None else _rate(own, f"{place} has the rate")
            array = one[key] if _is_array(one[key]) else np.asarray(one[key], np.float32)
            return _checked(place, array, own)
    if one.get(_BYTES) is not None:
        return open_files.OpenFile(io.BytesIO(one[_BYTES]), str(one.get(_PATH) or place))
    if isinstance(one.get(_PATH), str | os.PathLike):
        return _item(place, one[_PATH], rate, opened)
    if one.get(_NESTED) is not None:
        return _item(place, one[_NESTED], rate, opened)
    raise errors.InputError(
        f"{place} is a dict with {', '.join(map(str, one)) or 'nothing in it'}: give array and sampling_rate, bytes "
        "or path"
    )


def _open_file(place: str, file: Any) -> open_files.OpenFile:
    if getattr(file, "closed", False):
        raise errors.InputError(f"{place} is a closed file: give it open, or its path")
    if isinstance(file, io.TextIOBase):
        raise errors.InputError(f"{place} is a file opened as text: open it with mode 'rb'")
    if not (hasattr(file, "seekable") and file.seekable()):
        raise errors.InputError(f"{place} is a file that cannot be read twice: give io.BytesIO(file.read())")
    name = getattr(file, "name", None)
    return open_files.OpenFile(file, name if isinstance(name, str) else place)


def _checked(place: str, array: Any, rate: int | None) -> Any:
    """Samples of one mono recording as a NumPy array, with their rate where it is known."""
    if isinstance(array, list) and array and all(map(_is_number, array)):
        array = np.asarray(array, np.float32)
    if _is_missing(array):
        raise errors.InputError(f"{place} is missing ({array}): leave it out, as files.dropna() does")
    if not _is_array(array):
        raise errors.InputError(f"{place} is a {type(array).__name__}: give {FORMS}")
    samples = as_numpy(array)
    if samples.ndim == 2 and samples.shape[0] == 1:  # as torchaudio gives a mono file
        samples = samples[0]
    if samples.ndim != 1:
        raise errors.InputError(
            f"{place} has shape {tuple(samples.shape)}: give mono audio of shape (samples,), such as the mean over "
            "its channels"
        )
    if not loading.is_audio_type(samples.dtype):
        raise errors.InputError(f"{place} holds {samples.dtype}: give floats in [-1, 1] or int16")
    return samples if rate is None else (samples, rate)


def as_numpy(array: Any) -> np.ndarray:
    """Any array as NumPy's: of a torch tensor, without its gradient and from its device."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":  # which NumPy lacks
            array = array.float()
    return np.asarray(array)


def _rate(value: Any, front: str) -> int:
    number = value.item() if _is_array(value) and not value.shape else value
    whole = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    if not whole or number != int(number) or number < audio.LOWEST_RATE_HZ:
        raise errors.InputError(f"{front} {value!r}: give whole Hz, {audio.LOWEST_RATE_HZ} or more")
    return int(number)


def _name(index: int, one: Any, item: Any) -> str:
    if isinstance(one, str | os.PathLike):
        return os.fspath(one)
    if isinstance(one, Mapping) and isinstance(one.get(_PATH), str | os.PathLike):
        return os.fspath(one[_PATH])
    return f"item {index}" if isinstance(item, np.ndarray | tuple) else str(item)
