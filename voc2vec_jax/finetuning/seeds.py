"""Several seeds of one cross-validation together: RUN/summary.json and summary.md over RUN/seed_<seed>/summary.json.

Each seed has its own heads, batches, masks and dropout, and the same folds: the deviation over seeds is that of
training alone. A seed is a run of its own, resumed and reported as any other.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from voc2vec_jax import errors
from voc2vec_jax.finetuning import jobs, recipe, results, scoring
from voc2vec_jax.ops import metrics
from voc2vec_jax.runs import files, folder, logs

# Of a seed's summary, what is the same in all of them.
_SHARED = ("dataset", "title", "model", "system", "protocol", "averaged_classes", "asked_folds", "fewer_folds", "kind")
_SHARED += ("planned_folds", "labels", "clips", "groups", "hours", "audio_root")


def combine(workdir: pathlib.Path) -> bool:
    """Sum up the seeds in a folder that have a summary; whether all are complete.

    InputError where their configurations differ in more than the seed: a mean over them would mean nothing.
    """
    begun = _places(workdir, "config.json")
    found = {int(place.name.removeprefix("seed_")): place for place in _places(workdir, "summary.json")}
    if not found:
        return False
    _check_alike(list(found.values()))
    summaries = {seed: results.read_summary(place) for seed, place in found.items()}
    lacking = [place.name for place in begun if place not in found.values()]
    lacking += [f"seed_{seed}" for seed, summary in summaries.items() if not summary["complete"]]
    complete = not lacking
    combined = _combined(summaries, found, complete)
    files.write_atomic(workdir / "summary.md", _markdown(combined).encode())
    files.write_atomic(workdir / "summary.json", (json.dumps(combined, indent=1) + "\n").encode())
    spread = scoring.with_deviation(combined["kind"], combined["mean"], combined["std"], len(combined["seeds"]))
    rest = f"; not complete: {', '.join(lacking)}" if lacking else ""
    logs.say(f"{workdir}: {spread} over {len(found)} seeds (mean over seeds and folds, deviation over seeds){rest}")
    return complete


def check(job: jobs.CrossValidationJob) -> None:
    """InputError, before any work, where another seed in the folder was computed with other fields."""
    if job.seeds_of is not None:
        done = _places(job.seeds_of, "summary.json")
        _check_alike([place for place in done if place != job.workdir] + [job.workdir])


def _places(workdir: pathlib.Path, name: str) -> list[pathlib.Path]:
    """The folders of seeds that hold a file, in the order of the seeds."""
    found = [path.parent for path in workdir.glob(f"seed_*/{name}")]
    return sorted(found, key=lambda place: (len(place.name), place.name))


def _check_alike(places: Sequence[pathlib.Path]) -> None:
    """InputError for two seeds that were computed with other fields."""
    may_differ = ("seed", *recipe.MAY_DIFFER)
    first = folder.stored(places[0])
    for place in places[1:]:
        own = folder.stored(place)
        for name in sorted({*first, *own}):
            if name not in may_differ and own.get(name) != first.get(name):
                raise errors.InputError(
                    f"{place.parent} holds seeds of two configurations: {name} is {first.get(name)} in "
                    f"{places[0].name} and {own.get(name)} in {place.name}; give each configuration its own --workdir"
                )


def _combined(
    summaries: Mapping[int, Mapping[str, Any]], places: Mapping[int, pathlib.Path], complete: bool
) -> dict[str, Any]:
    first = next(iter(summaries.values()))
    kind = first["kind"]
    over_seeds = metrics.summarise([summary["mean"] for summary in summaries.values()])
    runs = [(places[seed], summary["folds"]) for seed, summary in summaries.items()]
    return {
        **{name: first[name] for name in _SHARED},
        "complete": complete,
        "seeds": [
            {"seed": seed, **{name: summary[name] for name in ("complete", "mean", "std", "pooled")}}
            for seed, summary in summaries.items()
        ],
        "folds": [{"seed": seed, **fold} for seed, summary in summaries.items() for fold in summary["folds"]],
        "mean": over_seeds.mean,
        "std": over_seeds.std,
        "pooled": results.pooled(kind, runs, first["averaged_classes"]),
        "baselines": first.get("baselines"),
        "leaks": first["leaks"],
    }


def _markdown(found: Mapping[str, Any]) -> str:
    titles = scoring.KINDS[found["kind"]].titles
    seeds = found["seeds"]
    lines = [f"# {found['system']} on {found['title']}, protocol {found['protocol']}, {len(seeds)} seeds", ""]
    if not found["complete"]:
        lines += ["**Incomplete: not all folds of all seeds are done.**", ""]
    lines += results.leak_lines(found["leaks"])
    lines += [f"| seed | {' | '.join(titles.values())} |", "|---" * (len(titles) + 1) + "|"]
    for one in seeds:
        folds = sum(fold["seed"] == one["seed"] for fold in found["folds"])
        values = " | ".join(scoring.spread(one["mean"][name], one["std"][name], folds) for name in titles)
        lines.append(f"| {one['seed']}: mean ± std over folds | {values} |")
    values = " | ".join(scoring.spread(found["mean"][name], found["std"][name], len(seeds)) for name in titles)
    lines.append(f"| mean over seeds and folds ± std over seeds | {values} |")
    values = " | ".join(scoring.with_interval(found["pooled"][name]) for name in titles)
    lines.append(f"| all clips of all seeds [95 % interval over {found['groups']} groups] | {values} |")
    lines += [*(f"{row} |" for row in results.baseline_rows(found)), ""]
    lines.append(f"{found['clips']} clips, {found['hours']:.2f} h; the folds are the same for every seed.")
    return "\n".join(lines) + "\n"
