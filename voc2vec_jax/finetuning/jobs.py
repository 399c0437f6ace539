"""The jobs of a configuration: one for every pair of a data set and a system, and for every layer of a probe."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.convert import sources
from voc2vec_jax.finetuning import paper_systems
from voc2vec_jax.runs import configuration


@dataclasses.dataclass(frozen=True)
class CrossValidationJob:
    """One cross-validation of one system on one data set, in a run folder of its own."""

    dataset: str
    title: str  # of the system, in tables and folder names
    source: str  # what `from_pretrained` takes, or a feature set
    how: str  # "finetune" | "features" | "probe"
    layer: int | None  # of a probe
    workdir: pathlib.Path
    config: ml_collections.ConfigDict  # with the fields of this job alone


def plan_jobs(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Iterator[CrossValidationJob]:
    """Every pair of a data set and a system: RUN/<data set>/<system>, or RUN itself when there is only one pair."""
    named = [config.model] if config.model else list(config.systems)
    named = list(paper_systems.PAPER_SYSTEMS) if named == ["paper"] else named
    titles = [system_title(config, name) for name in named]
    for title in titles:
        if titles.count(title) > 1:
            raise errors.InputError(f"two of the systems have the same name {title}: give each once")
    pairs = [(dataset, paper_systems.resolve(name), name) for dataset in config.datasets for name in named]
    for dataset, (system, source), name in pairs:
        title = system_title(config, name)
        how = config.how if config.how != "auto" else system.kind if system else "finetune"
        folder = workdir if len(pairs) == 1 else workdir / dataset / title
        own = ml_collections.ConfigDict(configuration.as_dict(config))
        own.datasets, own.model, own.systems, own.how = (dataset,), name, (), how
        if how != "probe":
            yield CrossValidationJob(dataset, title, source, how, None, folder, own)
            continue
        for layer in probe_layers(config.layers, source):
            place = folder / f"layer_{layer:02d}"
            yield CrossValidationJob(dataset, f"{title}-layer-{layer:02d}", source, how, layer, place, own)


def system_title(config: ml_collections.ConfigDict, name: str) -> str:
    """What tables and folders call a system."""
    system, _ = paper_systems.resolve(name)
    title = config.name or (system.name if system else slug(name))
    return f"{title}-fresh" if config.fresh and not config.name else title


def slug(name: str) -> str:
    """A short name for a source that can be a folder's too: its last part, plain characters only."""
    last = pathlib.PurePath(name.rstrip("/")).name or name
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") or "model"


def probe_layers(text: str, source: str) -> list[int]:
    """The layers of a probe: 0 is the input of the first block, k the output of block k."""
    depth = sources.read(source).config.encoder.depth
    if text == "all":
        return list(range(depth + 1))
    found = [configuration.parse_value("--config.layers", item, int) for item in text.split(",")]
    for layer in found:
        if not 0 <= layer <= depth:
            raise errors.InputError(f"--config.layers={text}: {source} has layers 0 to {depth}, and no {layer}")
    return found
