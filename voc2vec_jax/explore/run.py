"""An exploration from the recordings to its files.

    OUTPUT/explore.html                    the page, one file
    OUTPUT/vectors.parquet, vectors.csv    a row for each clip: class, prediction, place on the map, vector
    OUTPUT/copies.csv                      pairs of clips that hold the same sound
    OUTPUT/cache/                          prepared clips, fingerprints and features: safe to delete

What the cache holds already is not computed again.
"""

import pathlib

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from voc2vec_jax import errors
from voc2vec_jax.convert import paper_systems
from voc2vec_jax.explore import content, mapping, page, probe, tables, wording
from voc2vec_jax.explore import settings as explore_settings
from voc2vec_jax.finetuning import copies, feature_sets, own_data, targets, tasks
from voc2vec_jax.runs import files, logs

PAGE = "explore.html"


def run(settings: explore_settings.ExploreSettings) -> pathlib.Path:
    """Write the files; returns the page."""
    mapping.check(settings.map)
    _, source = paper_systems.resolve(settings.model)
    task = tasks.open_task(
        own_data.FOLDER,
        data_dir=settings.data_dir,
        data=settings.clips,
        on_unreadable="drop",
        max_seconds=settings.max_seconds,
        least_samples=feature_sets.least_samples(source),
        kind=targets.ANY,
        how=settings.how,
    )
    if not len(task):
        raise errors.InputError(f"none of the recordings of {settings.clips} can be used: the lines above say why")
    vectors = feature_sets.features(task, source, cache_dir=settings.data_dir / "features").astype(np.float32)
    pairs = copies.find(task, settings.data_dir).pairs
    found, no_probe = None, ""
    try:
        found = probe.run(settings, task, vectors)
        logs.say(f"a linear probe in {errors.counted(found.folds, 'fold')}: {wording.scores(found)}")
    except errors.InputError as fault:
        no_probe = str(fault)
        logs.warn(f"no probe: {no_probe}")
    places, no_map = _map(settings, vectors)
    whole = content.Exploration(task, settings, vectors.shape[1], found, no_probe, pairs, places, no_map)
    return _write(whole, tables.about(task, found.predictions if found else {}, places), vectors)


def _map(
    settings: explore_settings.ExploreSettings, vectors: Float32[np.ndarray, "n d"]
) -> tuple[dict[int, tuple[float, float]], str]:
    """The place of each row that is drawn, and why there is none."""
    rows = mapping.drawn(len(vectors), settings.seed)
    try:
        logs.say(f"a map of {len(rows)} clips, by {mapping.TITLES[settings.map]}")
        points = mapping.flat(vectors[rows], settings.map, settings.seed)
    except errors.InputError as fault:
        return {}, str(fault)
    return {row: (x, y) for row, (x, y) in zip(rows.tolist(), points.tolist())}, ""


def _write(whole: content.Exploration, about: pa.Table, vectors: Float32[np.ndarray, "n d"]) -> pathlib.Path:
    """All files, the page last."""
    folder = whole.settings.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tables.write_vectors(folder, about, vectors)
        tables.write_copies(folder, whole.task, whole.pairs)
        files.write_atomic(folder / PAGE, page.page(content.of(whole)).encode("utf-8", "replace"))
    except OSError as fault:
        raise errors.RunError(f"{fault.filename or folder} cannot be written: {fault.strerror}") from fault
    return folder / PAGE
