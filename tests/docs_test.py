"""Pages and scripts: links lead somewhere, what they name exists, tables and the front page stay readable."""

import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import json
import pathlib
import re
import tomllib

import pytest
import site_pages

from voc2vec_jax import programs
from voc2vec_jax.runs import configuration

ROOT = pathlib.Path(__file__).parents[1]
PLACES = ("configs", "docs", "tests", "tools", "voc2vec_jax")
READMES = [ROOT / "README.md", *sorted(page for place in PLACES for page in (ROOT / place).rglob("README.md"))]
GUIDES = sorted([*ROOT.glob("C*.md"), *(ROOT / "docs").rglob("*.md")])
PAGES = [*READMES, *GUIDES]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
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


@each([*PAGES, *NOTEBOOKS])
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


@each([*PAGES, *NOTEBOOKS])
def test_commands_and_flags_that_are_named_exist(page):
    """Of `voc2vec COMMAND --flag` in examples: the flag stands in the command's --help."""
    for name, flags in commands(page):
        assert name in programs.COMMANDS, name
        assert not flags - flags_of(name), name


def test_every_command_has_a_row():
    rows = re.findall(r"^\| `voc2vec (\w+)` \|", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(programs.COMMANDS)


def test_every_extra_is_on_the_page_on_installing():
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    page = (ROOT / "docs" / "install.md").read_text()
    rows = "".join(re.findall(r"^\| (`.*?) \|", page.partition("## Extras")[2], re.MULTILINE))
    commands = re.findall(r"\[([a-z][\w-]*)\]", page.partition("## Extras")[0])
    assert {*re.findall(r"[\w-]+", rows), *commands} == extras


def examples(page):
    """Lines of a page's blocks of commands, or of a notebook's cells, those with a backslash at their end joined."""
    if page.suffix == ".ipynb":
        cells = [cell for cell in json.loads(page.read_text())["cells"] if cell["cell_type"] == "code"]
        texts = ["".join(cell["source"]) for cell in cells]
    else:
        texts = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for text in texts for line in text.replace("\\\n", " ").splitlines()]


def commands(page):
    """(command, its flags) of every call of `voc2vec` in a page's examples."""
    for line in examples(page):
        found = re.match(r"\s*[$!]? ?voc2vec ([a-z]+)(.*)", line)
        if found:
            yield found[1], {flag for flag in re.findall(r" --(\w+)", found[2].partition(" # ")[0]) if flag != "config"}


@functools.cache
def help_of(name):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        programs.COMMANDS[name].load().main(["--help"])
    return printed.getvalue()


def flags_of(name):
    return set(re.findall(r"--(\w+)", help_of(name)))


def sentences():
    """Every text of the library and the programs, with `\0` where a value is put in."""
    for path in [*(ROOT / "voc2vec_jax").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        yield from filter(None, map(literal, ast.walk(ast.parse(path.read_text()))))


def literal(node):
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) or "\0" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return "".join(literal(part) or "\0" for part in (node.left, node.right))
    return ""


def listed_messages():
    """Messages in the first column of the page on troubleshooting, but for those of other programs."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text().partition("## Messages of other programs")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("message", listed_messages())
def test_messages_that_are_explained_are_in_the_code(message):
    pattern = ".*".join(map(re.escape, re.split(r"\.\.\.", message)))
    assert sum(map(len, message.split("..."))) >= 12, "too short to be found"
    assert any(re.search(pattern, text, re.DOTALL) for text in sentences_of_all()), message


@functools.cache
def sentences_of_all():
    return tuple(sentences())


def test_the_front_page_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_FRONT_PAGE


def test_every_page_is_within_reach():
    """READMEs from the front page; all pages and notebooks from the navigation of the site."""
    linked = {(ROOT / link).resolve() for link in LINK.findall((ROOT / "README.md").read_text())}
    assert set(READMES) - {ROOT / "README.md"} <= linked
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    for name, place in site_pages.pages().items():
        assert re.search(rf"[ \[]{re.escape(place)}\b", navigation), name
