"""Our numbers beside those that the public test suites of others publish for the same weights and recordings.

Covered are wav2vec 2.0 LS and WavLM+ (transformers) and HuBERT LS (fairseq); `published_numbers` has the sources.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax

from voc2vec_jax import errors
from voc2vec_jax.convert import paper_systems, reader, sources
from voc2vec_jax.verification import published_checks as checks
from voc2vec_jax.verification import published_clips as clips
from voc2vec_jax.verification import rows as verify_rows


def rows(
    systems: Sequence[str], recordings: Path | None, where: Mapping[str, str] | None = None
) -> list[verify_rows.Row]:
    """A row for each published result of each system, or one that says that there is none or what is missing.

    `recordings` is searched for the clips before the web is. `where` has the folder or the Hub id with a revision to
    read a system from, by default its name. InputError if `recordings` is no folder.
    """
    found = clips.Recordings(recordings)
    return [row for system in systems for row in _rows_of(system, found, (where or {}).get(system, system))]


def covered() -> dict[str, list[str]]:
    """What is compared of each system that a public test suite covers."""
    return {system: [check.compared for check in found] for system, found in checks.CHECKS.items()}


def _rows_of(system: str, found: clips.Recordings, where: str) -> Iterator[verify_rows.Row]:
    source = paper_systems.SYSTEMS[system].source if system in paper_systems.SYSTEMS else system
    revision = where.partition("@")[2]
    if system not in checks.CHECKS:
        why = f"no public test suite gives numbers for it; they do for {', '.join(checks.CHECKS)}"
        yield _row(system, source, revision, None, "-", why)
        return
    weights: reader.ModelWeights | None = None
    for check in checks.CHECKS[system]:
        try:
            for clip in check.needs:
                found.clip(clip)
            if weights is None:  # read once the recordings are there, as it may be fetched
                weights = sources.read(where)
            with jax.default_matmul_precision("highest"):
                result = check.compute(weights, found)
        except clips.Missing as missing:
            yield _row(system, source, revision, weights, check.compared, str(missing))
        except (errors.InputError, errors.RunError) as fault:
            yield dataclasses.replace(_row(system, source, revision, weights, check.compared, str(fault)), failed=True)
        else:
            yield _row(system, source, revision, weights, check.compared, result.why, result)


def _row(
    system: str,
    source: str,
    revision: str,
    weights: reader.ModelWeights | None,
    compared: str,
    why: str,
    result: checks.Found | None = None,
) -> verify_rows.Row:
    parameters = weights.parameters if weights else None
    if result is None:
        return verify_rows.Row(
            system, source, revision, parameters, compared, None, None, verify_rows.NOT_CHECKED, f"{why}."
        )
    equal = result.excess <= 1
    verdict = verify_rows.EQUAL if equal else verify_rows.DIFFERS
    more = f"the difference is {result.excess:.3g} times what is allowed"
    why = why if equal else f"{more}; {why}" if why else f"{more}."
    return verify_rows.Row(
        system, source, revision, parameters, compared, result.difference, result.largest, verdict, why
    )
