"""What a comparison found of one system: a row of the table and of verify.json."""

import dataclasses

from voc2vec_jax.convert import verify

EQUAL, DIFFERS, NOT_CHECKED = "equal", "differs", "not checked"


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a system as it lies here: `size` in bytes, `sha256` in hexadecimal; `checked` says against what."""

    name: str
    size: int
    sha256: str
    checked: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One system against one reference.

    `source` is a Hub id or a path, `revision` its commit ("" where it has none), `compared` what with what,
    `difference` and `largest` the largest difference and the largest value of the reference. `why` says in a sentence
    what a verdict other than "equal" comes from. `failed`: something is wrong that no one chose, such as a damaged
    file; what is merely not here has not failed.
    """

    system: str
    source: str
    revision: str
    parameters: int | None
    compared: str
    difference: float | None
    largest: float | None
    verdict: str
    why: str = ""
    files: tuple[File, ...] = ()
    failed: bool = False

    @property
    def is_fault(self) -> bool:
        """Whether the program ends with status 1 because of this row."""
        return self.failed or self.verdict == DIFFERS


def verdict(difference: float, largest: float, tolerance: float = verify.TOLERANCE) -> str:
    """ "equal" within `tolerance`, as `verify.within` has it. NaN and infinity differ."""
    return EQUAL if verify.within(difference, largest, tolerance) else DIFFERS
