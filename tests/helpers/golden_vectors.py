"""Where vectors of the reference implementations lie: beside the tests, and where VOC2VEC_GOLDEN says."""

import os
import pathlib


def folders(holding: str) -> list[pathlib.Path]:
    """Folders with a file of that name, the bundled ones first."""
    roots = [pathlib.Path(__file__).parents[1] / "golden"]
    if os.environ.get("VOC2VEC_GOLDEN"):
        roots.append(pathlib.Path(os.environ["VOC2VEC_GOLDEN"]))
    return list(dict.fromkeys(path.parent.resolve() for root in roots for path in sorted(root.rglob(holding))))
