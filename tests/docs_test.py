"""Pages and scripts: links lead somewhere, what they name exists, tables and the front page stay readable."""

import ast
import importlib
import importlib.util
import pathlib
import re

import pytest

from voc2vec_jax.runs import configuration

ROOT = pathlib.Path(__file__).parents[1]
PLACES = ("configs", "tests", "tools", "voc2vec_jax")
PAGES = [ROOT / "README.md", *sorted(page for place in PLACES for page in (ROOT / place).rglob("*.md"))]
SCRIPTS = sorted(path for path in (ROOT / "tools").rglob("*") if path.suffix in (".sh", ".sbatch", ".yaml"))
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(PLACES)})/[\w./-]*\.(?:py|sh|md|yaml|sbatch)\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SETTING = re.compile(r"--config\.([\w.]+)")
CONFIGURATIONS = {"voc125.py": None, "voc125_hubert.py": None, "finetune.py": "cnvve"}
LONGEST_FRONT_PAGE = 160
LONGEST_CELL = 120


def each(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def anchor(heading):
    """What a heading is linked by, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page):
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)}


def python_blocks(page):
    """Python in a page's examples or in a script's here-documents."""
    pattern = r"^```python\n(.*?)^```" if page.suffix == ".md" else r"<<'PYTHON'\n(.*?)^PYTHON$"
    return re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL)


def imported_by(node):
    """(name, what it stands for) of every import from the library."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.startswith("voc2vec_jax"):
                yield alias.asname or alias.name, importlib.import_module(alias.name)
    elif isinstance(node, ast.ImportFrom) and node.module.startswith("voc2vec_jax"):
        for alias in node.names:
            inside = getattr(importlib.import_module(node.module), alias.name, None)
            yield alias.asname or alias.name, inside or importlib.import_module(f"{node.module}.{alias.name}")


def fields(name):
    """Names of the settings of a configuration file, those of its model as `model.NAME`."""
    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), ROOT / "configs" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    argument = CONFIGURATIONS[name]
    return {field for field, _ in configuration.fields(module.get_config(*([argument] if argument else [])))}


@each(PAGES)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


@each([*PAGES, *SCRIPTS])
def test_paths_that_are_named_exist(page):
    """From the root, as in commands."""
    for path in PATH.findall(page.read_text()):
        assert (ROOT / path).is_file(), path


@each([*PAGES, *SCRIPTS])
def test_modules_and_names_that_are_used_exist(page):
    for module in re.findall(r"-m,? (voc2vec_jax\.[\w.]+)", page.read_text()):
        assert importlib.util.find_spec(module), module
    for block in python_blocks(page):
        nodes = list(ast.walk(ast.parse(block)))
        ours = dict(imported for node in nodes for imported in imported_by(node))
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
                assert hasattr(ours[node.value.id], node.attr), ast.unparse(node)


@each([*PAGES, *SCRIPTS])
def test_settings_that_are_named_exist(page):
    known = set().union(*map(fields, CONFIGURATIONS))
    assert set(SETTING.findall(page.read_text())) - {"FIELD", "field"} <= known


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_setting_is_described(name):
    described = set(re.findall(r"`([\w.]+)`", (ROOT / "configs" / "README.md").read_text()))
    assert {field.removeprefix("model.") for field in fields(name)} <= described


@each(PAGES)
def test_cells_of_tables_fit_a_line(page):
    for line in page.read_text().splitlines():
        if line.startswith("|"):
            assert max(map(len, line.strip("|").split("|"))) <= LONGEST_CELL, line


def test_the_front_page_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_FRONT_PAGE


def test_every_page_is_linked_from_the_front_page():
    linked = {(ROOT / link).resolve() for link in LINK.findall((ROOT / "README.md").read_text())}
    assert set(PAGES) - {ROOT / "README.md"} <= linked
