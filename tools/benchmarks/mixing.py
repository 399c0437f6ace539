"""How near the mix of data sets in an update is to the corpus's, and how evenly devices work, for several batch plans.

Nothing is read or timed: a figure follows from the clips' lengths alone. The total variation between two mixes is half
the sum of the differences of the sets' shares, 0 for the same mix and 1 for no set in common.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float64, Int, Int64

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import catalog, corpora
from voc2vec_jax.models import flops, wav2vec2
from voc2vec_jax.pretraining import batch_layout, batch_plan

CROP = 10 * audio.RATE_HZ
FAIRSEQ_SAMPLES = 1_400_000  # of a GPU's batch, padding included: max_tokens
UNITS = (0, 8, 4, 2, 1)
SHAPE = 4  # of the gamma distribution of lengths where only their mean is known


@dataclasses.dataclass(frozen=True)
class MixingBenchmark:
    """What to plan: updates of `groups` loss groups of 80 s on `devices`, from the `sets` in `data_dir`.

    Without them, from as many clips of about such lengths as the paper's ten sets have.
    """

    data_dir: str | None = None
    sets: tuple[str, ...] = ()
    groups: int = 64
    devices: int = 8
    updates: int = 300


def figures(settings: MixingBenchmark) -> Iterator[dict[str, str | int | float]]:
    """The total variation of updates, by clips and by audio: mean and largest; device work: largest to mean."""
    for name in ("groups", "devices", "updates"):
        if getattr(settings, name) < 1:
            raise errors.InputError(f"--{name}={getattr(settings, name)}: give 1 or more")
    if settings.groups % settings.devices:
        raise errors.InputError(f"--groups={settings.groups} do not divide over --devices={settings.devices}")
    samples, sets = clips(settings)
    for name, update in ways(settings, samples, sets).items():
        found = [update(k) for k in range(settings.updates)]
        by_clips = [variation(rows, np.ones(len(samples)), sets) for rows, _ in found]
        by_audio = [variation(rows, samples.astype(float), sets) for rows, _ in found]
        yield {
            "figure": f"mixing: {name}",
            "variation_of_clips": round(float(np.mean(by_clips)), 3),
            "most_of_clips": round(float(np.max(by_clips)), 3),
            "variation_of_audio": round(float(np.mean(by_audio)), 3),
            "most_of_audio": round(float(np.max(by_audio)), 3),
            "device_work": round(float(np.mean([work.max() / work.mean() for _, work in found])), 3),
            "groups": settings.groups,
            "devices": settings.devices,
            "updates": settings.updates,
            "clips": len(samples),
        }


def clips(settings: MixingBenchmark) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Samples, at most 10 s, and set of each clip."""
    if settings.data_dir is not None:
        corpus = corpora.open_corpus(settings.data_dir, settings.sets)
        return np.minimum(corpus.samples, CROP).astype(np.int64), corpus.set_index.astype(np.int64)
    return like_voc125()


def like_voc125(seed: int = 0) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Samples and set of clips as many, and as long on average, as table I of the paper says, in parts of 10 s.

    The spread of lengths within a set is ours: a gamma distribution, for AudioSet none.
    """
    draw, parts = np.random.default_rng(seed), []
    for name in catalog.PRETRAINING:
        card = catalog.CATALOG[name]
        mean = card.paper_hours * 3600 * audio.RATE_HZ / card.paper_samples
        whole = np.full(card.paper_samples, mean)
        if name != "audioset_vocalization":
            whole = np.maximum(draw.gamma(SHAPE, mean / SHAPE, card.paper_samples), 0.3 * audio.RATE_HZ)
        count = np.ceil(whole / CROP).astype(int)
        parts.append(np.repeat(whole / count, count).astype(np.int64))
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), list(map(len, parts)))


Update = Callable[[int], tuple[Int64[np.ndarray, "_"], Float64[np.ndarray, "_"]]]  # rows, operations of each device


def ways(settings: MixingBenchmark, samples: Int[np.ndarray, "n"], sets: Int[np.ndarray, "n"]) -> dict[str, Update]:
    """The rows of update k, and what each device computes, by kind of plan."""
    found: dict[str, Update] = {"groups sorted by length and shuffled, as fairseq's": _fairseq(settings, samples)}
    for unit in UNITS:
        layout = batch_layout.BatchLayout(settings.groups, 8, CROP, (CROP // 4, CROP // 2, CROP), unit)
        found[f"same_length_groups={unit}"] = planned(layout, samples, sets, settings.devices)
    return found


def planned(
    layout: batch_layout.BatchLayout, samples: Int[np.ndarray, "n"], sets: Int[np.ndarray, "n"], devices: int
) -> Update:
    """The updates of a batch plan."""
    drawn = batch_plan.BatchPlan(layout, samples, sets, np.arange(len(samples)), seed=0)
    work = [
        layout.group_rows_of(b) * sum(flops.training(wav2vec2.Config(), length).values())
        for b, length in enumerate(layout.bucket_samples)
    ]

    def update(k: int):
        step = drawn.step(k)
        rows = step.rows[step.rows != batch_layout.EMPTY]
        return rows, np.array(work)[step.bucket].reshape(devices, -1).sum(1)

    return update


def _fairseq(settings: MixingBenchmark, samples: Int[np.ndarray, "n"]) -> Update:
    """Clips sorted by length and cut into GPU batches of so many samples; the batches of an epoch are shuffled."""
    draw = np.random.default_rng(0)
    order = np.lexsort((draw.permutation(len(samples)), -samples))  # the longest first
    groups, begin = [], 0
    while begin < len(order):
        count = max(1, FAIRSEQ_SAMPLES // int(samples[order[begin]]))
        groups.append(order[begin : begin + count])
        begin += count
    costs = np.array([len(group) * samples[group[0]] for group in groups], float)
    per_epoch = len(groups) // settings.groups

    def update(k: int):
        epoch, index = divmod(k, max(per_epoch, 1))
        shuffled = np.random.default_rng(epoch).permutation(len(groups))
        own = shuffled[index * settings.groups : (index + 1) * settings.groups]
        work = np.resize(costs[own], settings.groups).reshape(settings.devices, -1).sum(1)
        return np.concatenate([groups[i] for i in own]), work

    return update


def variation(rows: Int[np.ndarray, "r"], weight: Float64[np.ndarray, "n"], sets: Int[np.ndarray, "n"]) -> float:
    """The total variation between the sets of `rows` and those of all clips, each counted by its weight."""
    counts = [np.bincount(sets[part], weight[part], minlength=sets.max() + 1) for part in (rows, np.arange(len(sets)))]
    ours, whole = (count / count.sum() for count in counts)
    return float(np.abs(ours - whole).sum() / 2)
