"""Whether a disk has room for what is about to be written."""

import pathlib
import shutil
from collections.abc import Sequence

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import listings

SAMPLED = 8  # recordings decoded to learn how large the others will become
MARGIN = 1.05
BYTES_PER_SAMPLE = 2


def check(listing: listings.Listing, missing: Sequence[listings.Recording], folder: pathlib.Path) -> None:
    """`errors.RunError` when the records of the `missing` recordings will not fit on the disk of `folder`."""
    needed = expected_bytes(listing, missing)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise errors.RunError(
            f"{folder} has {free / 1e9:.2f} GB free and the records take about {needed / 1e9:.2f} GB: free the disk or "
            f"choose another --data_dir"
        )


def expected_bytes(listing: listings.Listing, missing: Sequence[listings.Recording]) -> int:
    """Bytes that the records of some recordings will take, judged by decoding a few of them."""
    sample = missing[:: -(-len(missing) // SAMPLED)] if missing else []
    source = decoded = 0
    for recording in sample:
        try:
            decoded += len(listing.loader.load(recording.locator)) * BYTES_PER_SAMPLE
        except audio.AudioError:
            continue  # it is named when it is prepared
        source += recording.source_bytes
    every = sum(recording.source_bytes for recording in missing)
    return round(MARGIN * every * decoded / max(source, 1))
