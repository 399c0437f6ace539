"""Runs the notebooks of docs/notebooks and stores what they print.

python tools/notebooks.py [NAME ...] [--output=FOLDER]

They run in an empty folder, one after the other, with `voc2vec` being this checkout.
"""

import argparse
import itertools
import os
import pathlib
import re
import stat
import sys
import tempfile

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = ("embed_and_map", "cross_validate_a_folder")  # the second uses the model of the first
NOTEBOOKS = tuple(ROOT / "docs" / "notebooks" / f"{name}.ipynb" for name in NAMES)
CELL_SECONDS = 300
BAR = re.compile(r"^(?:.*\d%\|.*|[ \t]*)(?:\n|$)", re.MULTILINE)  # of progress, or what wipes it


def run(path: pathlib.Path, folder: pathlib.Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, after it has run in `folder`.

    CellExecutionError where a cell fails, CellTimeoutError after CELL_SECONDS in one.
    """
    program = folder / "programs" / "voc2vec"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m voc2vec_jax "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
    }
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=CELL_SECONDS, resources=place).execute(env=environment)
    return notebook


def without_traces(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it is stored: no times, no bars of progress, a stream in one piece."""
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = list(_joined(cell.outputs))
    return notebook


def _joined(outputs):
    for _, group in itertools.groupby(enumerate(outputs), lambda pair: pair[1].get("name", pair[0])):
        first, *others = (output for _, output in group)
        if first.output_type == "stream":
            text = "".join(output.text for output in (first, *others))
            first.text = BAR.sub("", re.sub(r"\r+\n?", "\n", text))
        if first.output_type != "stream" or first.text:
            yield first


def main() -> None:
    """Runs those that are named, or all, in their order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a notebook without its ending; none: all")
    parser.add_argument("--output", metavar="FOLDER", help="where to write them; none: in place")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for path in NOTEBOOKS:
            if not options.names or path.stem in options.names:
                target = pathlib.Path(options.output or path.parent) / path.name
                nbformat.write(without_traces(run(path, pathlib.Path(folder))), target)
                print(target)


if __name__ == "__main__":
    main()
