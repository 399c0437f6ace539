"""The end of an evaluation, once every part is there: check the rows, merge the errors, compute scores."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.datasets import list_text
from voc2vec_jax.inference import answers
from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.ops import metrics
from voc2vec_jax.runs import logs

FILE = "metrics.json"
SCORES = (*metrics.NAMES, "map", "auroc", "ccc", "pearson", "mae")


def conclude(output: evaluation_output.OutputFolder) -> str:
    """`finish`, told in one or two sentences. InputError when not a single recording can be used."""
    found = finish(output)
    if found is None:
        missing = output.missing()
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        return f"{len(missing):,} of {errors.counted(output.parts, 'part')} are left to other shards ({shown})"
    if not found["rows"]:
        raise errors.InputError(
            f"none of {errors.counted(found['unusable'], 'recording')} can be used: see {output.root}/errors.csv"
        )
    if "metrics" in found:
        named = ((name, found["metrics"].get(name)) for name in SCORES)
        scores = ", ".join(f"{name} {value:.4f}" for name, value in named if value is not None)
        logs.say(f"{scores} over {errors.counted(found['metrics']['clips'], 'labelled recording')}")
    odd = (row[2:] for row in output.all_rows("remarks"))
    for line in audio.summary(odd):
        logs.warn(f"{line} (remarks.csv)")
    unusable = f"{found['unusable']:,} could not be used (errors.csv)" if found["unusable"] else "none was unreadable"
    return f"{output.root} is complete: {errors.counted(found['rows'], 'row')} in {output.root / 'parts'}; {unusable}"


def finish(output: evaluation_output.OutputFolder) -> dict[str, Any] | None:
    """Writes errors.csv, remarks.csv and, with classes and labels, metrics.json. None while parts are missing.

    Any worker may call it any number of times. RunError when the parts do not hold every item exactly once.
    """
    if output.missing():
        return None
    unusable = output.merge_rows("errors")
    output.merge_rows("remarks")
    rows = sum(_metadata(output, number).num_rows for number in range(output.parts))
    if rows + unusable != output.description["rows"]:
        raise errors.RunError(
            f"{output.root} holds {rows} rows and {unusable} unusable items of {output.description['rows']}: delete "
            "its parts and run again"
        )
    scores = _scores(output, unusable) if output.description["classes"] else {}
    if scores:
        output.write_json(FILE, scores)
    output.clean()
    return {"rows": rows, "unusable": unusable, **({"metrics": scores} if scores else {})}


def _metadata(output: evaluation_output.OutputFolder, number: int) -> pq.FileMetaData:
    try:
        return pq.read_metadata(opening.checked(output.part(number)))
    except (pa.ArrowException, OSError) as fault:
        reason = str(fault).splitlines()[0]
        raise errors.RunError(f"{output.part(number)} is damaged ({reason}): delete it and run again") from fault


def _scores(output: evaluation_output.OutputFolder, unusable: int) -> dict[str, Any]:
    """Scores over the rows whose label is a class of the model, or a target of its kind; {} without such rows."""
    target = output.description.get("target", "classes")
    if target != "classes":
        return _target_scores(output, target, unusable)
    classes = output.description["classes"]
    at, known = {label: k for k, label in enumerate(classes)}, _Known(classes)
    confusion, foreign, unlabelled = np.zeros([len(classes)] * 2, np.int64), collections.Counter(), 0
    for number in range(output.parts):
        columns = pq.read_table(opening.checked(output.part(number)), columns=["label", "predicted"]).to_pydict()
        for label, guess in zip(columns["label"], columns["predicted"]):
            unlabelled += label is None
            label = label and known.name(label)
            if label in at:
                confusion[at[label], at[guess]] += 1
            elif label is not None:
                foreign[label] += 1
    if not confusion.any():
        return {}
    found = metrics.of_confusion(confusion)
    recalls = metrics.recalls(confusion)
    return {
        "clips": int(confusion.sum()),
        **{name: float(found[name]) for name in metrics.NAMES},
        "recall": {label: None if np.isnan(r) else float(r) for label, r in zip(classes, recalls)},
        "labels": classes,
        "confusion": confusion.tolist(),
        "unlabelled": unlabelled,
        "labels_unknown_to_the_model": dict(sorted(foreign.items())),
        "unusable": unusable,
    }


def _target_scores(output: evaluation_output.OutputFolder, target: str, unusable: int) -> dict[str, Any]:
    """Scores of labels or numbers over the rows that have one; labels that the model does not know are left out."""
    classes = output.description["classes"]
    true, values, foreign, unlabelled, known = [], [], collections.Counter(), 0, _Known(classes)
    column = answers.VALUE if target == "regression" else "probabilities"
    for number in range(output.parts):
        columns = pq.read_table(opening.checked(output.part(number)), columns=["label", column]).to_pydict()
        for text, value in zip(columns["label"], columns[column]):
            if text is None:
                unlabelled += 1
                continue
            found = answers.number(text) if target == "regression" else list(map(known.name, answers.split(text)))
            strange = ([text] if found is None else []) if target == "regression" else set(found) - set(classes)
            foreign.update(strange)
            if target == "regression" and not strange:
                true.append([found])
            elif target == "multilabel" and set(found) & set(classes):
                true.append([label in found for label in classes])
            else:
                continue
            values.append(np.atleast_1d(value))
    if not true:
        return {}
    score = metrics.of_numbers if target == "regression" else metrics.of_tags
    return {
        "clips": len(true),
        **{name: float(each[0]) for name, each in score(np.array(true), np.array(values, np.float64)).items()},
        "labels": classes,
        "unlabelled": unlabelled,
        "labels_unknown_to_the_model": dict(sorted(foreign.items())),
        "unusable": unusable,
    }


class _Known:
    """The classes of a model, which an earlier version may have named with spaces or loose accents."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._plain = {list_text.plain(label): label for label in classes}
        self._plain |= {label: label for label in classes}

    def name(self, label: str) -> str:
        """The model's name of a label; the label itself if the model does not know it."""
        return self._plain.get(label) or self._plain.get(list_text.plain(label), label)
