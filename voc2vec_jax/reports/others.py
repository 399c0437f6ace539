"""Results that others published on the paper's tasks, as columns of the tables that are asked for.

Only numbers that were read where `cited` says. None of them compares directly with a fold's mean of this library; each
source says why.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from voc2vec_jax.reports import paper as report_paper
from voc2vec_jax.reports import text as report_text

_METRICS = {"uar": "UAR", "accuracy": "accuracy", "f1_macro": "F1"}


class Source(NamedTuple):
    """One publication: where, how it tested, why that does not compare, and its rows.

    `tasks` has the best row of each of our tasks, `systems` the averages over the paper's six tasks.
    """

    name: str  # over its columns
    cited: str
    protocol: str
    apart: str
    tasks: dict[str, report_paper.Row]
    systems: dict[str, report_paper.Row]


def _row(**numbers: float | tuple[float, float]) -> report_paper.Row:
    pairs = {name: found if isinstance(found, tuple) else (found, None) for name, found in numbers.items()}
    return {name: report_paper.Number(*found) for name, found in pairs.items()}


LATER = Source(
    "README of voc2vec",
    "the table in the README of koudounasalkis/voc2vec at ef96058, 14 April 2025",
    "averages over the six tasks, as in the paper's table III; the README gives no protocol for its newest row",
    "it prints no row for a single task and no accuracy, and an average over fewer tasks is another number",
    {},
    {
        "voc2vec": _row(uar=(0.612, 0.212), f1_macro=(0.580, 0.230)),
        "voc2vec-as": _row(uar=(0.603, 0.183), f1_macro=(0.574, 0.194)),
        "voc2vec-ls": _row(uar=(0.661, 0.206), f1_macro=(0.636, 0.223)),
        "voc2vec-hubert-ls": _row(uar=(0.696, 0.189), f1_macro=(0.678, 0.200)),
        "wav2vec2-ls": _row(uar=(0.599, 0.237), f1_macro=(0.569, 0.259)),
        "hubert-ls": _row(uar=(0.627, 0.214), f1_macro=(0.611, 0.222)),
    },
)
MATA = Source(
    "MATA",
    "O. C. Phukan et al., Strong Alone, Stronger Together, ICASSP 2025, arXiv 2409.14221, from its abstract; its third "
    "set, JNV (accuracy .774, F1 .762), is none of these tasks",
    "MATA fuses LanguageBind and ImageBind by optimal transport; the abstract names neither split nor folds, nor how "
    "F1 is averaged",
    "other features than any system here, another split, and perhaps other classes; it is the same number in all rows",
    {
        "asvp_esd": _row(accuracy=0.7647, f1_macro=0.7035),
        "vivae": _row(accuracy=0.7512, f1_macro=0.7463),
    },
    {},
)
CLIC_IT = Source(
    "CLiC-it 2025",
    "J. J. Márquez Villacís et al., Exploring the Adaptability of Large Speech Models to Non-Verbal Vocalization Task, "
    "CLiC-it 2025, CEUR-WS 4112, paper 64; its tables could not be read, so that none of its numbers stands here",
    "linear probes, LoRA, adapters and prompts on wav2vec 2.0, HuBERT, WavLM and Whisper; its code "
    "(links-ads/kk-nonverbal-vocal-class) by default trains on 80 % of the clips, chooses on 10 and tests on 10, and "
    "prints accuracy and macro averages",
    "one split instead of folds, and other ways of adapting; by its abstract Whisper with LoRA is the best",
    {},
    {},
)
SOURCES = (LATER, MATA, CLIC_IT)


def of_tasks(datasets: Iterable[str]) -> list[Source]:
    """The sources with a number for one of these data sets."""
    wanted = set(datasets)
    return [source for source in SOURCES if wanted & source.tasks.keys()]


def of_systems(systems: Iterable[str]) -> list[Source]:
    """The sources with an average of one of these systems."""
    wanted = set(systems)
    return [source for source in SOURCES if wanted & source.systems.keys()]


def _metrics(source: Source) -> list[str]:
    """The metrics that a source gives, in the order of the tables."""
    rows = [*source.tasks.values(), *source.systems.values()]
    return [metric for metric in _METRICS if any(metric in row for row in rows)]


def columns(sources: Sequence[Source]) -> list[report_text.TableColumn]:
    """A column for each metric of each source."""
    return [report_text.TableColumn(_METRICS[name], source.name) for source in sources for name in _metrics(source)]


def numbers(sources: Sequence[Source], dataset: str = "", system: str = "") -> list[report_paper.Number | None]:
    """What the sources give for a data set or for a system, in the order of `columns`; None where they give nothing."""
    found = [(source, source.tasks.get(dataset) or source.systems.get(system) or {}) for source in sources]
    return [row.get(name) for source, row in found for name in _metrics(source)]


def notes(sources: Sequence[Source]) -> list[str]:
    """For each source a sentence: where its numbers stand, how they came about, and why they do not compare."""
    return [
        f"{source.name}: {source.cited}. Protocol: {source.protocol}. Not to be compared directly: {source.apart}."
        for source in sources
    ]
