"""The site builds without a warning and fetches nothing from elsewhere; notebooks run and hold what they printed."""

import html.parser
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import notebooks
import pytest
import site_pages

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
FETCHING = {"script": "src", "img": "src", "iframe": "src", "audio": "src", "source": "src", "link": "href"}
PLACE = re.compile(r"(?<![\w.:/~-])/\w+/|\b[A-Z]:\\\\")  # a path from the root of a disk


class Fetched(html.parser.HTMLParser):
    """Addresses that a browser fetches to show a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in FETCHING and attributes.get("rel") not in ("canonical", "next", "prev", "alternate"):
            self.found.append(attributes.get(FETCHING[tag]) or "")


def site_of(folder):
    """The site built into a folder, from this checkout."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return site_of(tmp_path_factory.mktemp("site"))


@pytest.mark.slow
def test_the_site_is_whole_and_fetches_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text())
        for address in parser.found:
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{page.name} fetches {address}"
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", styles)


@pytest.mark.slow
def test_a_search_for_a_message_leads_to_what_explains_it(site):
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    places = [entry["location"] for entry in found if "is a pointer of Git LFS" in entry["text"]]
    assert places == ["troubleshooting.html#models"]


@pytest.mark.slow
def test_the_site_shows_each_text_where_it_is_looked_for(site):
    for place, text in {
        "index.html": "Models that hear what a voice says without words",
        "configs/index.html": "Pre-training fields",
        "api/index.html": "A fault of the input or the command line",
        "api/inference.html": "voc2vec_jax.inference.pretrained",
        "notebooks/embed_and_map.html": "data:image/png;base64,",
        "troubleshooting.html": "remedy",
    }.items():
        assert text in (site / place).read_text(), place


@pytest.mark.parametrize(
    ("page", "written", "shown"),
    [
        ("README.md", "[a](configs/README.md#report)", "[a](configs/README.md#report)"),
        ("README.md", "![a](docs/quickstart.png)", "![a](quickstart.png)"),
        ("README.md", "[a](LICENSE)", "[a](source/LICENSE.md)"),
        ("docs/formats.md", "[a](../README.md)", "[a](README.md)"),
        ("docs/api/index.md", "[a](../../CHANGELOG.md)", "[a](../CHANGELOG.md)"),
        ("docs/notebooks/embed_and_map.ipynb", "[a](../models.md)", "[a](../models.md)"),
        ("docs/tutorial.md", "[a](notebooks/embed_and_map.ipynb)", "[a](notebooks/embed_and_map.md)"),
        ("voc2vec_jax/README.md", "[a](planning/README.md)", "[a](planning/README.md)"),
        ("voc2vec_jax/README.md", "[a](ops/losses.py)", "[a][voc2vec_jax.ops.losses]"),
        ("voc2vec_jax/datasets/README.md", "[a](published)", "[a][voc2vec_jax.datasets.published]"),
        ("configs/README.md", "[a](quickstart.py)", "[a](../source/configs/quickstart.py.md)"),
        ("configs/README.md", "[a](#report), [b](https://x.org/y)", "[a](#report), [b](https://x.org/y)"),
        ("configs/README.md", "```\n[a](quickstart.py)\n```", "```\n[a](quickstart.py)\n```"),
    ],
)
def test_links_of_the_forge_become_those_of_the_site(page, written, shown):
    place = types.SimpleNamespace(file=types.SimpleNamespace(src_uri=site_pages.pages()[page]))
    assert site_pages.on_page_markdown(written, place, None, None) == shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_outputs_and_no_place_of_a_machine(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    texts = [cell["source"] for cell in cells] + [output.get("text", ()) for output in outputs]
    assert not [line for text in texts for line in text if PLACE.search(line)]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert all(cell["outputs"] or "if not" in cell["source"][0] for cell in cells)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.slow
def test_notebooks_run(tmp_path):
    """In the order in which the second finds the model of the first."""
    assert sorted(notebooks.NOTEBOOKS) == NOTEBOOKS
    command = [sys.executable, str(ROOT / "tools" / "notebooks.py"), f"--output={tmp_path}"]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    for path in NOTEBOOKS:
        stored, ran = (json.loads(place.read_text())["cells"] for place in (path, tmp_path / path.name))
        assert [cell["source"] for cell in stored] == [cell["source"] for cell in ran]
        assert list(map(kinds, stored)) == list(map(kinds, ran))


def kinds(cell):
    """What a cell gave: text or pictures."""
    return [sorted(output.get("data", {"text": ""})) for output in cell.get("outputs", ())]
