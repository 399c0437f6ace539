"""Versions of this package and of what it stands on."""

import pathlib
import platform
import tomllib
from importlib import metadata

from voc2vec_jax import opening


def installed(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def own() -> str:
    """The version of this package: of the installed one, or of the sources that it runs from."""
    sources = pathlib.Path(__file__).parents[2] / "pyproject.toml"
    if sources.is_file():
        return tomllib.loads(opening.read_text(sources))["project"]["version"]
    return installed("voc2vec_jax") or "unknown"


def line() -> str:
    """What `--version` prints."""
    return f"voc2vec_jax {own()} (jax {installed('jax')}, Python {platform.python_version()})"
