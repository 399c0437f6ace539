"""The jobs of a configuration: for every pair of a data set and a system, every layer of a probe, and every seed."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.convert import paper_systems, sources
from voc2vec_jax.finetuning import recipe
from voc2vec_jax.runs import agreement, configuration


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
    seeds_of: pathlib.Path | None = None  # the folder of all seeds of this job, where several were asked for
    fault: errors.InputError | None = None  # why its system cannot be planned: raised when its turn comes


def plan_jobs(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Iterator[CrossValidationJob]:
    """Every pair of a data set and a system: RUN/<data set>/<system>, or RUN itself when there is only one pair.

    Layers of a probe get folders within it, and so do seeds. InputError for a name that is no system, and for a folder
    that was begun with one seed and is asked for several, or the other way round.
    """
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
        job = CrossValidationJob(dataset, title, source, how, None, folder, own)
        try:
            layers = _layers(job) if how == "probe" else [job]
        except errors.InputError as fault:
            if len(pairs) == 1:
                raise
            layers = [dataclasses.replace(job, fault=fault)]
        for each in layers:
            yield from _seeds(each)


def _layers(job: CrossValidationJob) -> list[CrossValidationJob]:
    """A job for every layer that is probed."""
    # Process 0 reads the model for all: a fault that only one of them met would leave them with different plans.
    layers = agreement.decided_by_first(lambda: probe_layers(job.config.layers, job.source))
    return [
        dataclasses.replace(
            job, title=f"{job.title}-layer-{layer:02d}", layer=layer, workdir=job.workdir / f"layer_{layer:02d}"
        )
        for layer in layers
    ]


def _seeds(job: CrossValidationJob) -> Iterator[CrossValidationJob]:
    """A job for every seed, in RUN/seed_<seed>; the job itself where `config.seeds` is empty."""
    begun = sorted(job.workdir.glob("seed_*/config.json"))
    if not job.config.seeds:
        if begun:
            raise errors.InputError(
                f"{job.workdir} holds runs of several seeds ({begun[0].parent.name}): give --config.seeds, or another "
                "--workdir"
            )
        yield job
        return
    if (job.workdir / "config.json").is_file():
        raise errors.InputError(
            f"{job.workdir} holds a run of one seed: leave --config.seeds out, or give another --workdir"
        )
    for seed in recipe.seeds(job.config):
        own = ml_collections.ConfigDict(configuration.as_dict(job.config))
        own.seed, own.seeds = seed, ""
        yield dataclasses.replace(job, workdir=job.workdir / f"seed_{seed}", config=own, seeds_of=job.workdir)


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
