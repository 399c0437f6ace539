"""The list of data sets: those of the voc2vec paper in the order of its tables, others, and two that need no publisher.

Each name is that of a module in `published/`, whose `SOURCE` says what the set is and how its recordings are found.
"""

import importlib

from voc2vec_jax.datasets import listings

PRETRAINING = (
    "audioset_vocalization",
    "freesound_babies",
    "human_voice",
    "nnime",
    "nonspeech7k",
    "recanvo",
    "singing_database",
    "tut_babies",
    "vocalsketch",
    "vocalsound",
)
TASKS = (
    "asvp_esd",
    "asvp_esd_babies",
    "cnvve",
    "donateacry",
    "nonverbal_vocalization",
    "vivae",
)
OTHERS: tuple[str, ...] = ()  # published sets that the paper does not use
OWN = (
    "folder",
    "synthetic",
)
VOC125 = (125.19, 68067, 6.67)  # hours, recordings and mean seconds in the last row of table I


def _source(name: str) -> listings.Source:
    return importlib.import_module(f"voc2vec_jax.datasets.published.{name}").SOURCE


CATALOG = {name: _source(name) for name in (*PRETRAINING, *TASKS, *OTHERS, *OWN)}
