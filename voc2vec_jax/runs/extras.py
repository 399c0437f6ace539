"""The command that installs what an optional feature needs."""

import os
import pathlib

_ROOT = pathlib.Path(__file__).parents[2]


def command(extra: str) -> str:
    """`pip install ...` for an extra of this package: from the sources that it runs from, else as it was installed.

    Both work without a package index that has this package: an installed one meets the name already.
    """
    if not (_ROOT / "pyproject.toml").is_file():
        return f"pip install 'voc2vec_jax[{extra}]'"
    return f"pip install -e '{_here()}[{extra}]'"


def reinstall() -> str:
    """`pip install ...` for this package and all that it always needs."""
    if not (_ROOT / "pyproject.toml").is_file():
        return "pip install --upgrade voc2vec_jax"
    return f"pip install -e '{_here()}'"


def _here() -> str:
    return "." if pathlib.Path(os.getcwd()) == _ROOT else str(_ROOT)
