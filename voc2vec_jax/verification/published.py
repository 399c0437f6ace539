"""Our numbers beside those that the public test suites of others publish for the same weights and recordings.

Covered are wav2vec 2.0 LS and WavLM+ (transformers) and HuBERT LS (fairseq); `published_numbers` has the sources.
"""

import dataclasses
import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax

from voc2vec_jax.convert import paper_systems, reader
from voc2vec_jax.runs import logs
from voc2vec_jax.verification import pins, systems
from voc2vec_jax.verification import published_checks as checks
from voc2vec_jax.verification import published_clips as clips
from voc2vec_jax.verification import rows as verify_rows

_NONE: Mapping[str, pins.Pin] = {}


def rows(words: Sequence[str], recordings: Path | None, lock: Mapping[str, pins.Pin] = _NONE) -> list[verify_rows.Row]:
    """A row for each published result of each system, or one that says that there is none or what is missing.

    `recordings` is searched for the clips before the web is; `lock` is that of `systems.How`. InputError if a word
    names no system, or `recordings` is no folder.
    """
    asked = [(word, *paper_systems.resolve(word)) for word in dict.fromkeys(words)]
    found = clips.Recordings(recordings)
    return [row for word, system, source in asked for row in _of(system.name if system else word, source, found, lock)]


def covered() -> dict[str, list[str]]:
    """What is compared of each system that a public test suite covers."""
    return {name: [check.compared for check in of_system] for name, of_system in checks.CHECKS.items()}


def _of(name: str, source: str, found: clips.Recordings, lock: Mapping[str, pins.Pin]) -> Iterator[verify_rows.Row]:
    row = verify_rows.Row(name, source, "", None, "", None, None, verify_rows.NOT_CHECKED)
    if name not in checks.CHECKS:
        why = f"the test suites that are compared have no numbers of it, only of {', '.join(checks.CHECKS)}"
        yield dataclasses.replace(row, why=why)
        return
    logs.say(f"{name}: {source}")
    weights: reader.ModelWeights | None = None
    for check in checks.CHECKS[name]:
        try:
            for clip in check.needs:
                found.clip(clip)
            if weights is None:  # read once the recordings are there, as it may be fetched
                row, _, weights = systems.opened(name, source, lock)
                if weights is None:
                    yield row
                    return
            with jax.default_matmul_precision("highest"):
                result = check.compute(weights, found)
        except clips.Missing as missing:
            yield _not_checked(row, check, str(missing))
        except systems.FAULTS as fault:
            if weights is None:
                yield systems.unread(name, source, fault)
                return
            yield dataclasses.replace(_not_checked(row, check, str(fault)), failed=True)
        else:
            yield _judged(row, check, result)
    gc.collect()


def _not_checked(row: verify_rows.Row, check: checks.Check, why: str) -> verify_rows.Row:
    return dataclasses.replace(row, compared=check.compared, verdict=verify_rows.NOT_CHECKED, why=why)


def _judged(row: verify_rows.Row, check: checks.Check, found: checks.Found) -> verify_rows.Row:
    equal = found.excess <= 1
    apart = "" if equal else f"the difference is {found.excess:.3g} times what is allowed"
    return dataclasses.replace(
        row,
        compared=check.compared,
        difference=found.difference,
        largest=found.largest,
        verdict=verify_rows.EQUAL if equal else verify_rows.DIFFERS,
        why="; ".join(filter(None, (apart, found.why))),
    )
