"""What a leak report means for the scores, in words: the lines that stand beside them wherever they are shown."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from voc2vec_jax import errors

LEAK, CAUTION, CLEAR = "leak", "caution", "clear"


class Badge(NamedTuple):
    """`text` is a sentence without its capital and its full stop; a "leak" raises scores, a "caution" may."""

    kind: str
    text: str

    @property
    def sentence(self) -> str:
        """With capital and full stop."""
        return f"{self.text[:1].upper()}{self.text[1:]}."


def badges(found: Mapping[str, Any] | None) -> list[Badge]:
    """The badges of a leak report as `leaks.report` makes it, leaks first; None is a run that made none.

    Values that are not there, as in reports of earlier versions, are left out.
    """
    if found is None:
        return [Badge(CAUTION, "leaks were not checked: whether this score measures memory is not known")]
    tested = found.get("tested")
    if not isinstance(tested, Mapping) or not (clips := _count(tested, "clips")):
        return []
    copies = sum(_count(tested, key) for key in ("identical", "near_identical", "overlapping"))
    speakers, unknown = _count(tested, "same_group"), _count(tested, "unknown_group")
    return [
        *_leaks(clips, copies, speakers),
        *_clear(clips, copies, speakers, unknown),
        *_cautions(found, clips, unknown),
    ]


def _count(found: Mapping[str, Any], key: str) -> int:
    value = found.get(key)
    return value if type(value) is int and value > 0 else 0


def _leaks(clips: int, copies: int, speakers: int) -> list[Badge]:
    found = []
    if copies:
        part = "" if 2 * copies >= clips else " in part"
        have = "has" if copies == 1 else "have"
        text = f"{copies} of {clips} tested clips {have} a near copy in training: this score measures memory{part}"
        found.append(Badge(LEAK, text))
    if speakers:
        are = "is" if speakers == 1 else "are"
        text = f"{speakers} of {clips} tested clips {are} of a speaker or group that is in training too: this score "
        found.append(Badge(LEAK, f"{text}says little of new speakers"))
    return found


def _clear(clips: int, copies: int, speakers: int, unknown: int) -> list[Badge]:
    if copies or speakers:
        return []
    known = ", and no known speaker is on both sides of a fold" if unknown < clips else ""
    return [Badge(CLEAR, f"no tested clip has a copy in training{known}")]


def _cautions(found: Mapping[str, Any], clips: int, unknown: int) -> list[Badge]:
    cautions = []
    if found.get("selected_on_test") is True:
        cautions.append("the epoch is selected on the tested clips: this score is the best case")
    if unknown:
        whose = "no clip" if unknown == clips else f"{unknown} of {clips} tested clips"
        known = "known" if unknown == clips else "not known"
        cautions.append(f"the speaker of {whose} is {known}: people may be on both sides of a fold")
    pretraining = found.get("pretraining")
    if isinstance(pretraining, Mapping) and (heard := _count(pretraining, "clips")):
        them, were = ("it", "was") if heard == 1 else ("them", "were")
        text = f"{errors.counted(heard, 'clip')}, or near copies of {them}, {were} in the pre-training data"
        cautions.append(f"{text}, without labels")
    return [Badge(CAUTION, text) for text in cautions]
