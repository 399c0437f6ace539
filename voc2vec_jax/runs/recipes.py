"""The recipes that come with this package: `voc125` is voc2vec_jax/configs/voc125.py, in a clone configs/voc125.py."""

import difflib
import pathlib

from voc2vec_jax.runs import files

_PACKAGE = pathlib.Path(__file__).parents[1]


def folder() -> pathlib.Path:
    """The folder of the recipes: inside an installed package, beside it in a clone."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """The names of the recipes, sorted."""
    return sorted(path.stem for path in folder().glob("*.py") if not path.stem.startswith("_"))


def named(name: str) -> pathlib.Path | None:
    """The file of a recipe; None if there is none of that name."""
    return folder() / f"{name}.py" if name in names() else None


def packaged(path: pathlib.Path) -> pathlib.Path:
    """The recipe that `configs/NAME.py` stands for where no such file is; any other path as it is."""
    if path.parent == pathlib.Path("configs") and path.suffix == ".py" and not path.exists():
        return named(path.stem) or path
    return path


def absent(path: pathlib.Path) -> str:
    """What to say of a path or name that is no file."""
    known = names()
    near = difflib.get_close_matches(path.stem, known, n=1)
    hint = files.similar(path, "*.py") or (f"; did you mean {near[0]}?" if near else f"; recipes: {', '.join(known)}")
    return f"there is no file {path}{hint}"
