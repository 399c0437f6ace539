"""Windows of recordings as items of `embed` and `predict`: scores over time in Python."""

from typing import Any

from voc2vec_jax import audio as recordings
from voc2vec_jax import errors
from voc2vec_jax.inference import items as item_lists
from voc2vec_jax.inference import loading, windowing
from voc2vec_jax.runs import logs


def windows(
    items: Any,
    window_seconds: int | float,
    hop_seconds: int | float | None = None,
    *,
    sampling_rate: Any = None,
    how: recordings.Reading = recordings.DEFAULT,
) -> item_lists.Windows:
    """Windows of recordings, every `hop_seconds` (by default half a window), to be given to `embed` or `predict`.

    `items`, `sampling_rate` and `how` are those of `embed`. The last window ends with its recording, and a shorter
    recording is one window. All samples are held in memory, 230 MB an hour; for long recordings there is `voc2vec
    evaluate --timeline`, which holds a few minutes.

        model.predict(windows("night.wav", 2, 1), as_frame=True)    # a row a window, indexed by file, start, end

    InputError for a window or hop that leaves gaps, and for a recording that cannot be read.
    """
    hop_seconds = window_seconds / 2 if hop_seconds is None else hop_seconds
    window, hop = (round(seconds * recordings.RATE_HZ) for seconds in (window_seconds, hop_seconds))
    if not 1 <= hop <= window:
        raise errors.InputError(
            f"windows of {window_seconds:g} s every {hop_seconds:g} s: give a window above 0, and a hop above 0 and no "
            "longer than it"
        )
    given, files = item_lists.listed(items, sampling_rate)
    cut = windowing.sliding(window, hop, lambda samples: samples)
    clips, names, remarks = [], [], []
    for file, wave in zip(files, loading.loaded(given, 1, how, remarks)):
        if isinstance(wave, errors.InputError):
            raise wave
        for at in cut(len(wave)):
            clips.append((wave[at.start : at.stop], recordings.RATE_HZ))
            names.append((file, at.start / recordings.RATE_HZ, at.stop / recordings.RATE_HZ))
    for line in recordings.summary(sorted(remarks), ""):
        logs.warn(line)
    return item_lists.Windows(clips, names)
