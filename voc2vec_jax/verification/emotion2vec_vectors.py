"""emotion2vec against its authors' own code: stored vectors of a small checkpoint with random weights.

transformers has no emotion2vec. The vectors are those of `tests/golden/emotion2vec_base`, computed by emotion2vec's
revision a0e606c on fairseq; the wheel brings them along.
"""

from pathlib import Path

import numpy as np

from voc2vec_jax import errors
from voc2vec_jax.convert import reader
from voc2vec_jax.inference import pretrained
from voc2vec_jax.verification import rows

_PLACES = (
    Path(__file__).with_name("vectors"),
    Path(__file__).parents[2] / "tests" / "golden" / "emotion2vec_base",
)
TOLERANCE = 2e-5  # that of the tests


def row() -> rows.Row:
    """The network of emotion2vec, whatever weights it has, against the vectors. RunError if they are not here."""
    folder = next((place for place in _PLACES if (place / "features.npz").is_file()), None)
    if folder is None:
        raise errors.RunError(f"the vectors of emotion2vec are not installed beside {__file__}: install this again")
    weights = reader.read(folder / "checkpoint.pt")
    wanted = np.load(folder / "features.npz")
    model = pretrained.Model("emotion2vec's vectors", weights)
    frames = model(wanted["audio"], normalize=False).last_hidden_state
    reference = wanted["last_hidden_state"]
    difference, largest = float(np.abs(frames - reference).max()), float(np.abs(reference).max())
    return rows.Row(
        "emotion2vec (network)",
        "small random weights",
        "",
        weights.parameters,
        "emotion2vec a0e606c on fairseq: last frames of 2 recordings",
        difference,
        largest,
        rows.verdict(difference, largest, TOLERANCE),
    )
