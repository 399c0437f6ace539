"""The card of a fine-tuned model: what it tells apart, how well, on which data, under which terms, and how to load it.

It is made of what the run folder says and of the list of data sets. Nothing of the machine enters it: sources that are
folders are called local.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from voc2vec_jax import errors
from voc2vec_jax.convert import paper_systems, reader, sources
from voc2vec_jax.datasets import catalog
from voc2vec_jax.finetuning import leak_badges, scoring
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.inference import publishing
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import text as report_text
from voc2vec_jax.runs import versions

SUMMARY, FINAL = "summary.json", "final"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
_UNKNOWN = re.compile(r"the training data of (?P<source>.+?)(, which is not there,)? \(not known\)")
_LOCAL = "a local checkpoint"
CITATION = """@inproceedings{koudounas2025voc2vec,
  title     = {voc2vec: A Foundation Model for Non-Verbal Vocalization},
  author    = {Koudounas, Alkis and La Quatra, Moreno and Siniscalchi, Sabato Marco and Baralis, Elena},
  booktitle = {IEEE International Conference on Acoustics, Speech and Signal Processing (ICASSP)},
  year      = {2025},
  doi       = {10.1109/ICASSP49660.2025.10890672}
}"""


class RunModel(NamedTuple):
    """A model of a run of fine-tuning: the run's folder, and the part that made it, "final" or such as "fold_03"."""

    run: pathlib.Path
    part: str


def publish(
    source: str | pathlib.Path,
    repository: str,
    *,
    licence: str = "",
    private: bool = False,
    output: str | pathlib.Path | None = None,
) -> str:
    """Uploads a model of a run of fine-tuning to `owner/name` on the Hub, with its card; returns its address.

    With `output` it writes what would be uploaded to a new folder, and returns the layout, "hf" or "jax". InputError as
    `card` and `publishing.upload`.
    """
    publishing.check_name(repository)
    if find(source) is None:
        raise errors.InputError(
            f"{source} is no model of a run of fine-tuning, so that there are no scores for a card: give a run that "
            "has kept one model, or RUN/fold_XX/model, or use from_pretrained(...).push_to_hub"
        )
    weights = sources.read(source)

    def made(layout: str) -> str:
        return card(source, weights, repository, layout, licence)

    if output is not None:
        return publishing.write_folder(pathlib.Path(output), weights, made)
    return publishing.push(weights, repository, made, private)


def find(source: str | pathlib.Path) -> RunModel | None:
    """The run of fine-tuning that a model belongs to, given as its own folder or as the run's; None for others."""
    path = pathlib.Path(source).expanduser()
    if path.name == "model" and (path.parents[1] / SUMMARY).is_file():
        return RunModel(path.parents[1], path.parent.name)
    if not (path / SUMMARY).is_file():
        return None
    if (path / FINAL / "final.json").is_file():
        return RunModel(path, FINAL)
    folds = sorted(path.glob("fold_*/model/config.json"))
    return RunModel(path, folds[0].parts[-3]) if len(folds) == 1 else None


def card(
    source: str | pathlib.Path, weights: reader.ModelWeights, repository: str, layout: str, licence: str = ""
) -> str:
    """The README.md of a model that lies as `repository` on the Hub in a layout, "hf" or "jax".

    `source` is a model that `find` finds. `licence` is one of the Hub's names of licences; without one the card says
    that its owner states none. InputError for a summary that cannot be used.
    """
    found = find(source)
    raw, run = fold_results.read_summary(found.run), report_runs.read(found.run)
    base = _public_source(run.model)
    head = _front_matter(run, weights, layout, licence, base)
    parts = [
        f"---\n{head}---\n",
        f"# {title(run, weights)}\n",
        _what(run, weights, base),
        "## Scores\n",
        *_scores(found, raw, run),
        "## Data\n",
        *_data(raw, run, licence),
        "## Use\n",
        _use(weights, repository, layout),
        "## Citation\n",
        f"```bibtex\n{CITATION}\n```\n",
        f"Made with voc2vec_jax {versions.own()}." + (f" It begins from {base}: cite that too." if base else "") + "\n",
    ]
    return "\n".join(parts)


def title(run: report_runs.ReportedRun, weights: reader.ModelWeights) -> str:
    """The system and the data set, in Markdown."""
    return f"{_system(run, weights)} on {_plain(_name(run.title))}"


def _plain(text: str) -> str:
    return report_text.to_markdown(text)


def _system(run: report_runs.ReportedRun, weights: reader.ModelWeights) -> str:
    system = paper_systems.SYSTEMS.get(run.system)
    return system.title if system else f"fine-tuned {weights.family}"


def _public_source(source: str) -> str:
    """The name on the Hub of a system of the paper, or of a model that was fetched to this machine; "" for others.

    runs/first may be a folder or the model `first` of one who is called `runs`, and the folder's name is no one's
    business.
    """
    if not _HUB_NAME.fullmatch(source) or pathlib.Path(source).exists():
        return ""
    name = source.partition("@")[0]
    if any(name == system.source for system in paper_systems.SYSTEMS.values()):
        return source
    try:
        from huggingface_hub import constants
    except ImportError:
        return ""
    cached = pathlib.Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    return source if cached.is_dir() else ""


def _front_matter(run, weights, layout, licence, base) -> str:
    """The YAML that the Hub reads."""
    titles = scoring.KINDS[run.kind].titles
    scores = [
        {"type": name, "name": title, "value": round(run.pooled[name]["value"], 4)} for name, title in titles.items()
    ]
    task = {"type": "audio-classification", "name": "Audio classification"}
    results = [{"task": task, "dataset": {"type": _name(run.dataset), "name": _name(run.title)}, "metrics": scores}]
    found: dict[str, Any] = {
        "library_name": "transformers" if layout == "hf" else "voc2vec_jax",
        "pipeline_tag": "audio-classification",
        **({"license": licence} if licence else {}),
        **({"base_model": base.partition("@")[0]} if base else {}),
        "tags": ["audio", "non-verbal vocalization", weights.family, "voc2vec_jax"],
        "model-index": [
            {"name": f"{_system(run, weights)} on {_name(run.title)}", "results": results if scores else []}
        ],
    }
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1000)


def _what(run, weights, base) -> str:
    e = weights.config.encoder
    origin = f"[{base}](https://huggingface.co/{base.partition('@')[0]})" if base else _LOCAL
    asked = {"classes": "Tells classes of sounds apart", "multilabel": "Finds which labels a sound has"}
    labels = ", ".join(map(_plain, weights.labels))
    first = f"{asked[run.kind]}: {labels}." if run.kind in asked else f"Estimates {labels} of a sound."
    return (
        f"{first}\n\n"
        f"{weights.parameters:,} parameters ({weights.family}: {e.depth} blocks of width {e.width}), fine-tuned from "
        f"{origin}. Input: mono audio at 16 kHz.\n"
    )


def _scores(found: RunModel, raw: Mapping[str, Any], run: report_runs.ReportedRun) -> list[str]:
    """Which scores these are, a table, and what a reader must know of them."""
    titles, count = scoring.KINDS[run.kind].titles, len(run.folds)
    folds = errors.counted(count, "fold")
    if found.part == FINAL:
        which = "This model was trained on all clips, so that its own score cannot be measured. Expect what the models "
        which += f"of the {folds} of a cross-validation reached, which saw fewer clips:"
    else:
        number = int(found.part.rpartition("_")[2])
        own = next((fold.scores for fold in run.folds if fold.fold == number), None)
        which = f"This is the model of fold {number} of a cross-validation"
        which += f"; on the clips that it did not see: {scoring.described(own, run.kind)}. " if own else ". "
        which += f"All {folds}, each tested on clips that its model did not see:"
    rows = ["| | " + " | ".join(titles.values()) + " |", "|---" * (len(titles) + 1) + "|"]
    each = run.summary
    spread = [scoring.spread(each.mean[name], each.std[name], count) for name in titles]
    rows.append(f"| mean ± deviation of the folds | {' | '.join(spread)} |")
    intervals = [scoring.with_interval(run.pooled[name]) for name in titles]
    rows.append(f"| all clips [95 % interval] | {' | '.join(intervals)} |")
    rows += [f"{row} |" for row in fold_results.baseline_rows(raw)]
    lines = [f"{which}\n", *rows, ""]
    if not run.complete:
        lines += [f"**Incomplete: {run.progress} folds.**\n"]
    badges = [badge for badge in leak_badges.badges(raw.get("leaks")) if badge.kind != leak_badges.CLEAR]
    lines += [f"**{badge.sentence}**\n" for badge in badges]
    lines += [f"{_plain(sentence)}.\n" for sentence in raw.get("warnings") or ()]
    return [*lines, f"Protocol: {run.protocol}. Intervals are by bootstrap over speakers or groups.\n"]


def _data(raw: Mapping[str, Any], run: report_runs.ReportedRun, licence: str) -> list[str]:
    hours = raw.get("hours")
    much = f"{run.clips:,} clips" if run.clips else "clips"
    much += f", {hours:.2f} h" if isinstance(hours, int | float) else ""
    lines = [f"- fine-tuned and tested on {_of_set(run.dataset, run.title)}: {much}, {len(run.labels)} classes"]
    before = (run.leaks or {}).get("pretraining") or {}
    names = [_of_set(name, name) for name in before.get("sets") or {}]
    names += dict.fromkeys(map(_public_words, before.get("unchecked") or ()))
    if names:
        lines.append(f"- before that: {'; '.join(names)}")
    stated = f"- licence of this model: {licence}" if licence else "- licence of this model: its owner states none"
    return [*lines, f"{stated}; the terms of the data and of the model that it begins from apply too\n"]


def _of_set(name: str, title: str) -> str:
    """A data set with its address and licence, where it is a published one."""
    source = catalog.CATALOG.get(name)
    if source is None or name in catalog.OWN:
        return f"{_plain(_name(title))} ({'made by a program' if name == 'synthetic' else 'not published'})"
    return f"[{_plain(source.title)}]({source.url}) (licence: {_plain(source.licence)})"


def _name(title: str) -> str:
    """The title of a data set of one's own without the digest that its folder has."""
    return re.sub(r"_[0-9a-f]{8}$", "", title)


def _public_words(words: str) -> str:
    """What is said of other training data, without the paths in it; a data set with its licence."""
    if words in catalog.CATALOG:
        return _of_set(words, words)
    if unknown := _UNKNOWN.fullmatch(words):
        return f"the training data of {_public_source(unknown['source']) or _LOCAL} (not known)"
    return _plain(words) if not re.search(r"[/\\]", words) else "other data"


def _use(weights: reader.ModelWeights, repository: str, layout: str) -> str:
    lines = [
        "```python",
        "import voc2vec_jax as v2v  # pip install 'voc2vec_jax[hub]'",
        "",
        f'model = v2v.from_pretrained("{repository}")',
        'found = model.predict(["laugh.wav"])  # files of any format and rate',
        "print(found.labels, found.probabilities)",
        "```",
        "",
    ]
    if layout == "hf":
        lines += [
            "```python",
            "import transformers",
            "",
            f'classify = transformers.pipeline("audio-classification", "{repository}")',
            "```",
            "",
        ]
        if weights.family != "whisper" and getattr(weights.config.encoder, "conv_norm", "") == "group":
            lines += ["In transformers the outputs of padded batches differ: there padding is normalised too.", ""]
    how = "normalised to zero mean and unit variance, by the loaders above" if weights.normalizes else "not normalised"
    return "\n".join([*lines, f"The input is {how}. Recordings over 30 s are computed in windows.", ""])
