"""Which commit of the Hub each system is taken at, and what its files must hold.

A commit stands here only if it can be read in public code. The four are those of
https://github.com/embeddings-benchmark/mteb (`mteb/models/model_implementations/{wav2vec2,hubert,wavlm}_models.py`,
read 29 November 2026); sizes and SHA-256 of their files are those that users of the same commits published, such as
https://github.com/IceFerryLing/audio_process (`scripts/download_hubert_model.py`). None was downloaded for this table.
Of the other systems the newest commit is taken, shown and written down; `--lock=verify.json` repeats it exactly.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import weight_files
from voc2vec_jax.runs import files as run_files


@dataclasses.dataclass(frozen=True)
class Pin:
    """A commit ("" for the newest), and size in bytes and SHA-256 of files that are known."""

    revision: str = ""
    files: Mapping[str, tuple[int, str]] = dataclasses.field(default_factory=dict)


PINS = {
    "wav2vec2-ls": Pin(
        "0b5b8e868dd84f03fd87d01f9c4ff0f080fecfe8",
        {
            "config.json": (1842, "4937977e24d12d1bba70cdce8709c3c04807a8e4ae8ddac4229c48c436ae99ae"),
            "preprocessor_config.json": (159, "b225d617c025463b9e157e06afea8b90dc7078fc70b013c533328423e0486b4a"),
            "pytorch_model.bin": (380_267_417, "3249fe98bfc62fcbc26067f724716a6ec49d12c4728a2af1df659013905dff21"),
        },
    ),
    "hubert-ls": Pin(
        "dba3bb02fda4248b6e082697eee756de8fe8aa8a",
        {
            "preprocessor_config.json": (213, "4a93853b74278b7c769d07f5a861e5d12ceb5db2bced5620d335f87238cb9e86"),
            "pytorch_model.bin": (377_569_754, "062249fffb353eab67547a2fbc129f7c31a2f459faf641b19e8fb007cc5c48ad"),
        },
    ),
    "wavlm": Pin("efa81aae7ff777e464159e0f877d54eac5b84f81"),
    "wavlm-plus": Pin(
        "4c66d4806a428f2e922ccfa1a962776e232d487b",
        {
            "config.json": (2232, "fea6df1c2700a3954fc07e70588aecc9055eeb28db2ff57151a2db0d19180ed4"),
            "preprocessor_config.json": (215, "99272fe8ccfab114b68b478681ea47ee3a1ce62bb788cb92dd6e4f69fb1f1da2"),
            "pytorch_model.bin": (377_617_425, "3bb273a6ace99408b50cfc81afdbb7ef2de02da2eab0234e18db608ce692fe51"),
        },
    ),
}
_MOST_BYTES = 1 << 63  # of a file, where a file system ends
_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


def of_lock(path: Path) -> dict[str, Pin]:
    """What an earlier verify.json says of each system: its commit, and size and SHA-256 of every file.

    InputError for anything else.
    """
    if not path.exists():
        raise errors.InputError(
            f"there is no {path}{run_files.similar(path)}; voc2vec verify writes one, without --lock"
        )
    raw = weight_files.read_json(path)
    systems = raw.get("systems")
    if not isinstance(systems, list):
        raise errors.InputError(f"{path} is no verify.json: it has no list of systems")
    found = {}
    for row in systems:
        try:
            files = {str(f["name"]): (f["size"], str(f["sha256"])) for f in row["files"]}
            name, revision = str(row["system"]), str(row["revision"])
        except KeyError as fault:
            raise errors.InputError(f"{path} is no verify.json: a row lacks {fault}; write it again") from fault
        except TypeError as fault:
            shown = printable.value(row)
            raise errors.InputError(
                f"{path} is no verify.json: {shown} is no row of a system; write it again"
            ) from fault
        if wrong := [size for size, _ in files.values() if type(size) is not int or not 0 <= size < _MOST_BYTES]:
            raise errors.InputError(
                f"{path}: {printable.value(wrong[0])} is no size of a file of {name}; write it again"
            )
        hashes = all(_SHA256.fullmatch(sha256) for _, sha256 in files.values())
        if not hashes or (revision and not _COMMIT.fullmatch(revision)):
            raise errors.InputError(f"{path}: {name} has no commit or no SHA-256; write it again with voc2vec verify")
        if files:
            found.setdefault(name, Pin(revision, files))
    return found
