"""One system after another: its files, its weights, its hidden states, and a row on each."""

import dataclasses
import gc
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from voc2vec_jax import errors
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import paper_systems, reader, sources, verify
from voc2vec_jax.runs import extras, logs
from voc2vec_jax.verification import emotion2vec_vectors, pins, recordings, rows, snapshots, states, stored

AGAINST = ("auto", "transformers", "stored")
FAULTS = (errors.InputError, errors.RunError, OSError, MemoryError)  # of one system, told in its row
_COMPARE_FEATURES = 6373  # of ComParE 2016, functionals


@dataclasses.dataclass(frozen=True)
class How:
    """What to compare with: `against` is one of AGAINST, `lock` says which commits and files, `numbers` are stored.

    `keep` collects transformers' numbers of the systems that are equal.
    """

    against: str
    lock: Mapping[str, pins.Pin]
    numbers: Mapping[str, stored.Numbers]
    keep: dict[str, stored.Numbers] | None = None


def check(words: Sequence[str], how: How) -> list[rows.Row]:
    """A row or more for each system, Hub id, folder or file; a fault of one is told in its row."""
    asked = [(word, *paper_systems.resolve(word)) for word in dict.fromkeys(words)]  # all, before anything is fetched
    found = []
    for word, system, source in asked:
        name = system.name if system else word
        logs.say(f"{name}: {source}")
        try:
            found += _rows(name, source, how)
        except FAULTS as fault:
            found.append(unread(name, source, fault))
        gc.collect()  # one system's models at a time: a base one takes 2 GB
    return found


def unread(name: str, source: str, fault: BaseException) -> rows.Row:
    """The row of a system that one of FAULTS kept from being checked."""
    failed, text = not isinstance(fault, snapshots.Absent), str(fault) or type(fault).__name__
    return rows.Row(name, source, "", None, "", None, None, rows.NOT_CHECKED, text, failed=failed)


def _rows(name: str, source: str, how: How) -> list[rows.Row]:
    if source == paper_systems.SYSTEMS["opensmile"].source:
        return [_opensmile(name, source)]
    row, snapshot, weights = opened(name, source, how.lock)
    if weights is None:
        return [row]
    compared = [_compared(row, snapshot, weights, how)]
    return [*compared, emotion2vec_vectors.row()] if weights.family == "emotion2vec" else compared


def opened(
    name: str, source: str, lock: Mapping[str, pins.Pin]
) -> tuple[rows.Row, snapshots.Snapshot, reader.ModelWeights | None]:
    """A system's files and weights, and a row without a verdict; without weights, the row says why. Raises FAULTS."""
    pin = lock.get(name) or pins.PINS.get(name) or pins.Pin()
    path = Path(source).expanduser()
    snapshot = snapshots.local(path, pin) if path.exists() else snapshots.fetch(source, pin)
    for file in snapshot.files:
        checked = f", {file.checked}" if file.checked else ""
        logs.say(f"    {file.name}: {file.size:,} bytes, SHA-256 {file.sha256}{checked}")
    row = rows.Row(name, source, snapshot.revision, None, "its files", None, None, rows.DIFFERS, snapshot.fault)
    row = dataclasses.replace(row, files=snapshot.files, failed=True)
    if snapshot.fault:
        return row, snapshot, None
    try:
        weights = sources.read(snapshot.path)
    except errors.InputError as fault:
        return dataclasses.replace(row, compared="", verdict=rows.NOT_CHECKED, why=str(fault)), snapshot, None
    return dataclasses.replace(row, parameters=weights.parameters, failed=False), snapshot, weights


def _compared(row: rows.Row, snapshot: snapshots.Snapshot, weights: reader.ModelWeights, how: How) -> rows.Row:
    """The row with its verdict; "not checked" where there is nothing to compare with."""
    key, numbers = stored.weights_of(row.files), how.numbers.get(row.system)
    reference, why = _reference(weights, key, numbers, how.against)
    if not reference:
        return dataclasses.replace(row, compared="", verdict=rows.NOT_CHECKED, why=why)
    clips = recordings.read()
    mine = states.ours(row.system, weights, clips)
    if reference == "stored":
        program, found = f"stored numbers of {numbers.program}", stored.compare(mine, numbers)
    else:
        program, other = states.program(), states.theirs(snapshot.path, weights, clips)
        found = states.furthest(mine, other)
        if how.keep is not None and found.verdict == rows.EQUAL:
            how.keep[row.system] = stored.of(other, key, program)
    return _judged(row, f"{program}: {found.states} states of {len(clips)} recordings", found)


def _reference(weights: reader.ModelWeights, key: str, numbers: stored.Numbers | None, against: str) -> tuple[str, str]:
    """ "transformers" or "stored", else "" and why it is neither."""
    reasons = []
    if against != "stored":
        if weights.family not in convert_names.HF_PREFIXES:
            reasons.append(f"transformers has no {weights.family}")
        elif weights.family == "whisper" or weights.source_format != "hf":
            reasons.append(f"voc2vec convert compares {weights.family} ({weights.source_format}) with transformers")
        elif missing := verify.absent():
            found = f"{' and '.join(missing)} {'are' if missing[1:] else 'is'} not installed"
            reasons.append(f"{found}: pip install torch transformers")
        else:
            return "transformers", ""
    if against != "transformers":
        if numbers is not None and numbers.weights == key:
            return "stored", ""
        reasons.append("no numbers of it are stored" if numbers is None else "the stored numbers are of other weights")
    return "", "; ".join(reasons)


def _judged(row: rows.Row, compared: str, found: states.Difference) -> rows.Row:
    why = ""
    if found.verdict != rows.EQUAL:
        why = f"hidden states are up to {found.difference:.1e} apart, with values up to {found.largest:.3g}"
    return dataclasses.replace(
        row, compared=compared, difference=found.difference, largest=found.largest, verdict=found.verdict, why=why
    )


def _opensmile(name: str, source: str) -> rows.Row:
    """openSMILE has no weights: the installed package's feature set, or that it is not installed."""
    row = rows.Row(name, source, "", None, "", None, None, rows.NOT_CHECKED)
    if importlib.util.find_spec("opensmile") is None:
        needed = extras.command("opensmile")
        return dataclasses.replace(row, why=f"it has no weights, and its package is not installed: {needed}")
    import opensmile

    smile = opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.Functionals)
    count = len(smile.feature_names)
    compared = f"opensmile {importlib.metadata.version('opensmile')}: names of its features"
    verdict = rows.EQUAL if count == _COMPARE_FEATURES else rows.DIFFERS
    why = "" if verdict == rows.EQUAL else f"{count:,} features where ComParE 2016 has {_COMPARE_FEATURES:,}"
    return dataclasses.replace(row, compared=compared, verdict=verdict, why=why)
