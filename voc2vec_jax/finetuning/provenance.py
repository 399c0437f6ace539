"""What a model has heard before: the data sets behind a source, through every run and model that it began from."""

import pathlib
import re
from typing import Any, NamedTuple

from voc2vec_jax import opening
from voc2vec_jax.convert import paper_systems
from voc2vec_jax.datasets import catalog
from voc2vec_jax.finetuning import feature_sets

_CORPORA = {"LS960": "LibriSpeech", "none": ""}
_HUB_CACHE = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)")  # a folder in the cache of the Hub


class TrainingData(NamedTuple):
    """`sets` are named as prepared sets are, so that they can be looked for; `unchecked` tells the rest, in words."""

    sets: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


NONE = TrainingData()


class _Step(NamedTuple):
    """What one source says of itself: sets, other data in words, and the sources that it began from."""

    sets: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()


def of_model(source: str) -> TrainingData:
    """The data of a source and of all that it began from, each named once.

    A source is what `sources.read` takes, or a feature set. Known are the systems of the paper, our runs of
    pre-training (`sets`, `init_from`), the models of our fine-tuning folds (their data set and `model`), and folders
    that name where they come from (`_name_or_path`). Of any other source it is said that its data is not known.
    """
    found: list[_Step] = []
    seen: set[str] = set()
    waiting = [source]
    while waiting:
        key = _key(waiting[0])
        name = waiting.pop(0)
        if key not in seen:  # a run that was moved may seem to begin from itself
            seen.add(key)
            found.append(_step(name))
            waiting += found[-1].earlier
    sets = dict.fromkeys(name for step in found for name in step.sets)
    unchecked = dict.fromkeys(words for step in found for words in step.unchecked)
    return TrainingData(tuple(sets), tuple(unchecked))


def _key(source: str) -> str:
    path = pathlib.Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source


def _step(source: str) -> _Step:
    hub = _HUB_CACHE.search(source)
    name = f"{hub['owner']}/{hub['name']}" if hub else source
    path = pathlib.Path(source).expanduser()
    if source in feature_sets.FEATURE_SETS:
        return _Step()  # computed by a formula
    for system in paper_systems.SYSTEMS.values():
        if name.partition("@")[0] == system.source or (name == system.name and not path.exists()):
            return _of_system(system)
    if path.is_dir():
        return _of_folder(path, source)
    return _unknown(source if path.exists() or _is_hub_name(source) else f"{source}, which is not there,")


def _is_hub_name(source: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", source) is not None


def _unknown(source: str) -> _Step:
    return _Step(unchecked=(f"the training data of {source} (not known)",))


def _of_system(system: paper_systems.PaperSystem) -> _Step:
    corpora = system.pretraining.split(" + ")
    others = [_CORPORA.get(words, words) for words in corpora if words != "Voc125"]
    return _Step(catalog.PRETRAINING if "Voc125" in corpora else (), tuple(filter(None, others)))


def _of_folder(folder: pathlib.Path, source: str) -> _Step:
    """What a folder's config.json says: of our pre-training, of ours or transformers' as a model, or nothing."""
    config = json_of(folder / "config.json")
    if isinstance(config.get("sets"), list):
        start = config.get("init_from")
        return _Step(tuple(map(str, config["sets"])), earlier=(str(start),) if start else ())
    # RUN/fold_03/model or RUN/final/model, whose RUN holds the configuration of the fine-tuning; or RUN itself
    place = folder.resolve()
    run = place.parents[1] if place.name == "model" else place
    if step := _of_fine_tuning(run):
        return step
    raw = config.get("raw_config")
    # Adapters name their source, and transformers may name where a model came from.
    origins = [config.get("source"), *(each.get("_name_or_path") for each in (config, raw) if isinstance(each, dict))]
    origin = next((each for each in origins if isinstance(each, str) and each and _key(each) != _key(source)), None)
    return _Step(earlier=(origin,)) if origin else _unknown(source)


def _of_fine_tuning(run: pathlib.Path) -> _Step | None:
    """The clips that a fold's model was trained on, and the model that it began from; None for no such run."""
    config = json_of(run / "config.json")
    if not isinstance(config.get("datasets"), list) or not isinstance(config.get("model"), str):
        return None
    name = json_of(run / "summary.json").get("dataset")
    names = (str(name),) if name else tuple(map(str, config["datasets"]))
    return _Step(names, earlier=() if config.get("fresh") else (config["model"],))


def json_of(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file; {} for any other file, or none."""
    try:
        found = opening.read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
