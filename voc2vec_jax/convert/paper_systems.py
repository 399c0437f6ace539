"""The systems that the paper compares, and the one published later: names, titles, and where their weights are."""

import difflib
import os
import pathlib
import re
from typing import NamedTuple

from voc2vec_jax import errors


class PaperSystem(NamedTuple):
    """One row of the tables.

    `source` is what `from_pretrained` takes, or openSMILE's feature set. `kind` is "finetune" (all parameters are
    trained) or "features" (two linear layers over fixed features).
    """

    name: str
    title: str
    source: str
    kind: str
    family: str
    pretraining: str


_LS, _AS, _VOC = "LS960", "AudioSet", "Voc125"
_ROWS = (
    PaperSystem("opensmile", "openSMILE", "ComParE_2016", "features", "opensmile", "none"),
    PaperSystem(
        "emotion2vec",
        "emotion2vec",
        "emotion2vec/emotion2vec_base",
        "features",
        "emotion2vec",
        "LS960 + emotional speech",
    ),
    PaperSystem("data2vec", "data2vec", "facebook/data2vec-audio-base", "finetune", "data2vec", _LS),
    PaperSystem("wavlm", "WavLM", "microsoft/wavlm-base", "finetune", "wavlm", _LS),
    PaperSystem("wavlm-plus", "WavLM+", "microsoft/wavlm-base-plus", "finetune", "wavlm", "94k h of speech"),
    PaperSystem("wav2vec2-ls", "wav2vec 2.0 LS", "facebook/wav2vec2-base", "finetune", "wav2vec2", _LS),
    PaperSystem("wav2vec2-as", "wav2vec 2.0 AS", "ALM/wav2vec2-base-audioset", "finetune", "wav2vec2", _AS),
    PaperSystem("hubert-ls", "HuBERT LS", "facebook/hubert-base-ls960", "finetune", "hubert", _LS),
    PaperSystem("hubert-as", "HuBERT AS", "ALM/hubert-base-audioset", "finetune", "hubert", _AS),
    PaperSystem("voc2vec", "voc2vec", "alkiskoudounas/voc2vec", "finetune", "wav2vec2", _VOC),
    PaperSystem("voc2vec-as", "voc2vec AS", "alkiskoudounas/voc2vec-as-pt", "finetune", "wav2vec2", f"{_AS} + {_VOC}"),
    PaperSystem("voc2vec-ls", "voc2vec LS", "alkiskoudounas/voc2vec-ls-pt", "finetune", "wav2vec2", f"{_LS} + {_VOC}"),
    PaperSystem(
        "voc2vec-hubert-ls",
        "voc2vec HuBERT LS",
        "alkiskoudounas/voc2vec-hubert-ls-pt",
        "finetune",
        "hubert",
        f"{_LS} + {_VOC}",
    ),
)
SYSTEMS: dict[str, PaperSystem] = {row.name: row for row in _ROWS}  # in the order of the tables
_LATER = ("voc2vec-hubert-ls",)  # published in the official repository after the paper
PAPER_SYSTEMS = tuple(name for name in SYSTEMS if name not in _LATER)


def resolve(name_or_path: str | os.PathLike) -> tuple[PaperSystem | None, str]:
    """The system, if any, and the source that a name, a path or a Hub id stands for.

    A name of SYSTEMS or its Hub id gives that system. An existing path or another Hub id (`owner/model`) gives (None,
    itself). A name wins over a folder of the same name: write `./voc2vec` for the folder. InputError for anything
    else, with the nearest name.
    """
    text = os.fspath(name_or_path)
    if text in SYSTEMS:
        return SYSTEMS[text], SYSTEMS[text].source
    for system in SYSTEMS.values():
        if text == system.source and system.family != "opensmile":
            return system, text
    here = text and pathlib.Path(text).expanduser().exists()  # nothing is no name of this folder
    if here or re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", text):
        return None, text
    near = difflib.get_close_matches(text, SYSTEMS, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"the systems are {', '.join(SYSTEMS)}"
    raise errors.InputError(f"{text!r} is neither a system, a file or folder, nor a Hub id (owner/model); {hint}")
