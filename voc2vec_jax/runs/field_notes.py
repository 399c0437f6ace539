"""What fields mean, from the comments of the Python files that state them; nothing is run.

A field's note is the comment behind it, else the lines of comment right above it:

    c.peak_lr = 1e-4  # learning rate after the warm-up
    # Of training clips; 0: not
    c.augment_speed, c.augment_shift = 0.0, 0.0
    width: int = 768  # of a block
    "seed": 0,  # of weights, batches and masks
"""

import ast
import importlib.util
import io
import pathlib
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping

from voc2vec_jax import opening
from voc2vec_jax.runs import recipes

_SOURCE = re.compile(r"; (paper|not in the paper|fairseq|ours|HuBERT|as voc2vec)\b.*")


def of_recipe(path: pathlib.Path, names: Iterable[str]) -> dict[str, str]:
    """Notes by the last part of a field's name: those of a recipe's file, else of `names`, the first that has one.

    `names` are modules of this package and packaged recipes; of another recipe the source of its value is left out.
    """
    found = of_source(opening.read_text(path))
    for name in names:
        other = recipes.named(name) or pathlib.Path(importlib.util.find_spec(name).origin)
        for field, note in of_source(opening.read_text(other)).items():
            found.setdefault(field, _SOURCE.sub("", note))
    return found


def of_source(source: str) -> dict[str, str]:
    """Notes by name, from the text of one file."""
    behind, alone = _comments(source)
    found: dict[str, str] = {}
    for name, first, last in _fields(ast.parse(source)):
        note = behind.get(last) or _above(first, alone)
        if note:
            found.setdefault(name, note)
    return found


def _comments(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """Comments by line: those behind code, and those that have a line to themselves."""
    behind: dict[int, str] = {}
    alone: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            of_kind = behind if token.line[: token.start[1]].strip() else alone
            of_kind[token.start[0]] = token.string.lstrip("# ").rstrip()
    return behind, alone


def _above(line: int, alone: Mapping[int, str]) -> str:
    lines: list[str] = []
    while (line := line - 1) in alone:
        lines.insert(0, alone[line])
    return re.sub(r"\s+", " ", " ".join(lines))


def _fields(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """(name, first line, last line) of all that may be a field."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets = [part for target in node.targets for part in getattr(target, "elts", [target])]
            for target in targets:
                if isinstance(target, ast.Attribute):
                    yield target.attr, node.lineno, node.end_lineno
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.lineno, node.end_lineno
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                # A dictionary of one line has a comment for itself, and none for its keys
                if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.lineno > node.lineno:
                    yield key.value, key.lineno, value.end_lineno
