"""Pages of the site that do not lie in docs/, and links that work on the forge and on the site.

A hook of MkDocs (mkdocs.yml). Nothing is copied: a README is read from where it lies, a notebook is shown with the
outputs stored in it, the API comes from docstrings, and files that are linked get a page with their text. Links in all
pages are relative to the file, as a forge reads them; here they are turned into those of the site.
"""

import base64
import json
import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIBRARY = "voc2vec_jax"
PLACES = ("configs", "tests", "tools", LIBRARY)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"  # so that a message or a word leads to a guide, and not to code
LANGUAGES = {".py": "python", ".sh": "bash", ".sbatch": "bash", ".yaml": "yaml", ".cff": "yaml", ".json": "json"}


def pages():
    """Path below the root of every text that is a page, and its path on the site."""
    root = {path.name: path.name for path in ROOT.glob("*.md")}
    readmes = {name: name for place in PLACES for name in _names((ROOT / place).rglob("*.md"))}
    docs = {name: name.removeprefix("docs/") for name in _names((ROOT / "docs").rglob("*.md"))}
    notebooks = {name: f"{name.removeprefix('docs/')[:-6]}.md" for name in _names((ROOT / "docs").rglob("*.ipynb"))}
    return {**root, **readmes, **docs, **notebooks}


def _names(paths):
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def links(name):
    """Paths below the root that a page links to."""
    for _, _, link in LINK.findall(FENCE.sub("", (ROOT / name).read_text())):
        if not re.match(r"[a-z]+:", link) and link.partition("#")[0]:
            yield _target(name, link)


def _target(name, link):
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link.partition("#")[0]))


def on_config(config):
    """Adds a page for each package to the part of the navigation called API."""
    for entry in config.nav:
        if "API" in entry:
            entry["API"] = [*entry["API"], *(f"api/{package}.md" for package in _packages())]
    return config


def on_files(files, config):
    """Adds the pages outside docs/."""
    from mkdocs.structure.files import File

    known = pages()
    for name, place in known.items():
        if name.endswith(".ipynb"):
            files.append(File.generated(config, place, content=notebook_text(name)))
        elif not name.startswith("docs/"):
            files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    for package in _packages():
        files.append(File.generated(config, f"api/{package}.md", content=_api_text(package)))
    for name in sorted({target for page in known if page.endswith(".md") for target in links(page)} - set(known)):
        if (ROOT / name).is_file() and not _module(name) and not name.startswith("docs/"):
            files.append(File.generated(config, _source(name), content=_source_text(name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns the links of a page into those of the site."""
    names = {place: name for name, place in pages().items()}
    name = names.get(page.file.src_uri)
    if name is None:
        return markdown
    parts = FENCE.split(markdown)
    parts[::2] = [
        LINK.sub(lambda found: _on_site(name, page.file.src_uri, *found.groups()), part) for part in parts[::2]
    ]
    return "".join(parts)


def _on_site(name, place, mark, text, link):
    """A link of the page `name`, which is `place` on the site."""
    if re.match(r"[a-z]+:", link) or link.startswith("#"):
        return f"{mark}[{text}]({link})"
    target, heading = _target(name, link), link.partition("#")[2]
    if (ROOT / target).is_dir() and not _module(target):
        target = f"{target}/README.md"
    if _module(target):
        return f"[{text}][{_module(target)}]"
    known = pages()
    found = known.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else _source(target))
    relative = posixpath.relpath(found, posixpath.dirname(place) or ".")
    return f"{mark}[{text}]({relative}{'#' + heading if heading else ''})"


def _module(name):
    """The module or package that a path of the library is, or an empty text."""
    path = ROOT / name
    if name.split("/")[0] != LIBRARY or not (path.suffix == ".py" or (path / "__init__.py").is_file()):
        return ""
    parts = pathlib.PurePosixPath(name).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _packages():
    """The packages, and the library itself for the modules that lie in none."""
    return [LIBRARY, *sorted(path.parent.name for path in (ROOT / LIBRARY).glob("*/__init__.py"))]


def _api_text(package):
    paths = (ROOT / LIBRARY).glob("[!_]*.py") if package == LIBRARY else (ROOT / LIBRARY / package).rglob("*.py")
    shown = (ROOT / "docs" / "api" / "index.md").read_text()  # and no name has two places
    modules = [module for module in map(_module, _names(paths)) if f"::: {module}\n" not in shown]
    entries = "\n\n".join(f"::: {module}" for module in sorted(modules))
    return f"{UNSEARCHED}# {package}\n\n{entries}\n"


def _source(name):
    return f"source/{name}.md"


def _source_text(name):
    language = LANGUAGES.get(pathlib.PurePosixPath(name).suffix, "text")
    return f"{UNSEARCHED}# {name}\n\n````{language}\n{(ROOT / name).read_text()}````\n"


def notebook_text(name):
    """A notebook as Markdown: its text, code, and the outputs that are stored in it."""
    cells = json.loads((ROOT / name).read_text())["cells"]
    texts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            texts.append(source)
            continue
        texts.append(f"```python\n{source}\n```")
        texts.extend(filter(None, map(_output_text, cell["outputs"])))
    return "\n\n".join(texts) + "\n"


def _output_text(output):
    data = output.get("data", {})
    if "image/png" in data:
        encoded = "".join(data["image/png"]).replace("\n", "")
        assert base64.b64decode(encoded, validate=True)
        return f"![picture](data:image/png;base64,{encoded})"
    if "text/html" in data:
        return "".join(data["text/html"])
    text = "".join(output.get("text") or data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""
