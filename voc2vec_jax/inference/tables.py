"""Results as DataFrames of pandas, indexed by the files they belong to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import results
from voc2vec_jax.runs import extras


def of_features(
    names: list[Any],
    values: list[Float32[np.ndarray, "*_t l d"]],
    layers: Sequence[int],
    encoder: Any,
    pool: str | None,
) -> Any:
    """A row for each item, indexed by `file`; without pooling a row for each frame, indexed by `file, start, end`.

    A column for each number of each layer, `layer_12_0` on. Start and end are times around the middle of what a frame
    sees, one hop apart; an item without frames has no row. Where `names` are (file, start, end) of windows, rows are
    indexed by the three.
    """
    pandas = _pandas()
    shown = [min(layer, encoder.depth) for layer in layers]
    columns = [f"layer_{layer}_{k}" for layer in shown for k in range(encoder.width)]
    if pool is not None:
        table = np.stack(values).reshape(len(values), -1)
        return pandas.DataFrame(table, _index(names), columns)
    counts = [len(value) for value in values]
    middles = encoder.middle_samples + encoder.hop_samples * np.concatenate([np.arange(count) for count in counts])
    ends = [np.maximum(0, middles + side * encoder.hop_samples / 2) / audio.RATE_HZ for side in (-1, 1)]
    spans = [name if isinstance(name, tuple) else (name, 0.0, 0.0) for name in names]
    files = [span[0] for span, count in zip(spans, counts) for _ in range(count)]
    starts = np.repeat([span[1] for span in spans], counts)
    index = _spans(files, starts + ends[0], starts + ends[1])
    return pandas.DataFrame(np.concatenate(values).reshape(len(index), -1), index, columns)


def of_prediction(names: list[Any], found: results.Prediction, kind: str) -> Any:
    """A row for each item, indexed by `file`: `predicted`, and the probability of each class.

    Of a regression the numbers alone.
    """
    pandas = _pandas()
    table = pandas.DataFrame(found.probabilities, _index(names), list(found.classes))
    if kind != "regression":
        table.insert(0, "predicted", list(found.labels), allow_duplicates=True)
    return table


def _index(names: list[Any]) -> Any:
    if not names or isinstance(names[0], str):
        return _pandas().Index(names, name="file")
    files, starts, ends = zip(*names)
    return _spans(list(files), np.array(starts), np.array(ends))


def _spans(files: list[str], starts: np.ndarray, ends: np.ndarray) -> Any:
    pandas = _pandas()
    times = [pandas.to_timedelta(np.round(seconds * 1e6).astype(np.int64), unit="us") for seconds in (starts, ends)]
    return pandas.MultiIndex.from_arrays([files, *times], names=["file", "start", "end"])


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise errors.InputError(f"as_frame needs pandas: {extras.command('frame')}") from None
    return pandas
