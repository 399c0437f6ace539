"""The page and its pictures: names are text, players open the listener's files, incomplete runs are marked."""

import base64
import fnmatch
import hashlib
import json
import pathlib
import re
import tomllib
import urllib.parse

import fake_runs
import html_pages
import jinja2
import numpy as np
import pytest
from matplotlib import figure

from voc2vec_jax import errors
from voc2vec_jax.reports import build, details, drawing
from voc2vec_jax.reports import figures as report_figures
from voc2vec_jax.reports import page as report_page
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import text as report_text

EVIL = "<img src=x onerror=alert(1)>\"'&|`$\\frac{1}{0}$ [a](javascript:b) %_#~^{} https://e.vil\u202e\x07\n"


@pytest.fixture
def draws_nothing(monkeypatch):
    fake_runs.draw_nothing(monkeypatch)


# --- names from files


def hostile(folder, name):
    """Two runs, one incomplete, with `name` wherever a name comes from a file."""
    for at, folds in enumerate((3, 2)):
        fake_runs.write(
            folder / f"run{at}",
            dataset=f"own{name}",
            title=f"VIVAE{name}",
            system=f"system {at}{name}",
            labels=("anger", f"fear{name}", "pain"),
            folds=folds,
            suffix=name,
            seed=at,
            audio_root=f"/none{name}",
        )
        fake_runs.edit(
            folder / f"run{at}", leaks={f"count{name}": 1, "deep": {f"x{name}": f"y{name}"}}, model=name or "m"
        )
    (folder / "lost").mkdir()
    fault = {key: f"{key}{name}" for key in ("dataset", "title", "system", "protocol", "reason")}
    (folder / "lost" / "fault.json").write_text(json.dumps(fault))
    return folder


def test_hostile_names_add_no_tag_no_attribute_and_no_line_of_their_own(tmp_path, draws_nothing):
    pages = []
    for place, name in (("plain", ""), ("evil", EVIL)):
        runs = hostile(tmp_path / place, name)
        build.write([runs], tmp_path / place / "report.html")
        pages.append(html_pages.Page((tmp_path / place / "report.html").read_text()))
    plain, evil = pages
    assert [(tag, set(found)) for tag, found in evil.tags] == [(tag, set(found)) for tag, found in plain.tags]
    assert any("<img src=x onerror=alert(1)>" in words for words in evil.words)  # there, as text
    assert "\u202e" not in "".join(evil.words) and "\x07" not in "".join(evil.words)
    for name in ("scores", "pairs"):
        kinds = [(tmp_path / place / f"report_{name}.md").read_text() for place in ("plain", "evil")]
        assert len(kinds[0].splitlines()) == len(kinds[1].splitlines())
        bars = [[len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()] for text in kinds]
        assert bars[0] == bars[1]
        assert "<" not in kinds[1] and "https://" not in kinds[1] and not re.search(r"(?<!\\)\[", kinds[1])


def texts(words):
    """What a reader sees of these strings, in order and with single spaces."""
    return re.sub(r"\s+", " ", " ".join(words)).strip()


def test_what_is_read_on_the_page_is_the_name_itself_wherever_a_run_gives_one(tmp_path, draws_nothing):
    folder = hostile(tmp_path, EVIL)
    build.write([folder], tmp_path / "report.html")
    page = html_pages.Page((tmp_path / "report.html").read_text())
    seen, shown = texts(page.words), texts([report_text.clean(EVIL)])
    key = shown.replace("_", " ")  # as the leak report's names are written
    expected = [f"VIVAE{shown}", f"system 0{shown}", f"system 1{shown} \N{DAGGER}", f"fear{shown}"]
    expected += [f"count{key} 1", f"deep x{key} y{shown}"]
    assert [words for words in expected if words not in seen] == []
    labels = [found["aria-label"] for _, found in page.tags if found.get("role") == "region"]
    assert sum(shown in texts([label]) for label in labels) >= 4
    assert all(shown in texts([found["alt"]]) for tag, found in page.tags if tag == "img")


def test_templates_escape_every_value_and_know_every_name():
    environment = report_page.templates()
    assert environment.list_templates() == ["parts.html.j2", "report.css", "report.html.j2", "report.js"]
    for name in environment.list_templates():
        assert not re.search(r"\bsafe\b|autoescape", environment.loader.get_source(environment, name)[0]), name
    assert environment.from_string("{{ a }}").render(a="<\"'&>\x07") == "&lt;&#34;&#39;&amp;&gt;\ufffd"
    with pytest.raises(jinja2.UndefinedError, match="'b' is undefined"):
        environment.from_string("{{ b }}").render(a="")
    with pytest.raises(jinja2.UndefinedError, match="is undefined"):
        environment.get_template("report.html.j2").render()


def test_the_wheel_takes_the_templates_along():
    project = tomllib.loads((pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["voc2vec_jax.reports"]
    names = report_page.templates().list_templates()
    assert names and all(any(fnmatch.fnmatch(f"templates/{name}", p) for p in patterns) for name in names)


def test_latex_of_hostile_names_has_no_live_command(tmp_path, draws_nothing):
    build.write([hostile(tmp_path, EVIL)], tmp_path / "report.html")
    text = (tmp_path / "report_scores.tex").read_text()
    plain = (tmp_path / "report_pairs.tex").read_text()
    allowed = r"\\(textbf|textit|textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|textquotedbl"
    allowed += (
        r"|textdagger|textdaggerdbl|textemdash|multicolumn|cmidrule|begin|end|centering|footnotesize|caption|toprule"
    )
    allowed += r"|midrule|bottomrule|pm|Delta|resizebox|ifdim|width|textwidth|else|fi|usepackage|[\\{}$&#%_])"
    for source in (text, plain):
        assert "\\" not in re.sub(allowed, "", source)
        bare = re.sub(r"\\[{}]", "", source)
        assert bare.count("{") == bare.count("}")
        assert len(re.findall(r"(?<!\\)\$", source)) % 2 == 0
        assert not re.search(r"(?<!\\)[#_^~]|(?<!\\)%(?! needs)", source)
    assert report_text.to_latex("[*--]") == "{[}{*}{-}{-}{]}"
    assert report_text.to_latex("{}$&#%_") == r"\{\}\$\&\#\%\_"


def test_a_name_stays_on_its_line_and_controls_nothing():
    assert report_text.clean("a\u2028b\nc\td\x1b[31m\u202e\ud800") == "a b c d\ufffd[31m\ufffd\ufffd"


def test_latex_of_many_rows_goes_on_over_pages_and_loses_none():
    rows = [[report_text.Cell(f"row {number}")] for number in range(130)]
    groups = [report_text.Group("A", rows[:20]), report_text.Group("B", rows[20:])]
    text = report_text.latex(report_text.Table("t", "T", [report_text.TableColumn("c")], groups, ["remark"]))
    pages = text.split(r"\begin{table*}")[1:]
    assert re.findall(r"row \d+", text) == [cell.text for (cell,) in rows]
    assert all(page.count("row ") <= 48 for page in pages) and len(pages) == 3
    assert text.count("remark") == 1 and all("B, continued" in page for page in pages[1:])


def test_markdown_of_a_name_is_text_whatever_it_begins_with():
    table = report_text.Table("t", "# t", [report_text.TableColumn("a|b")], [], ["- item", "1. item", "<b>"])
    text = report_text.markdown([table], ["# head"])
    assert text.splitlines()[0] == "&#35; head"
    assert "&#45; item" in text and "1&#46; item" in text and "&lt;b&gt;" in text
    assert report_text.to_markdown("a|b*c_d`e\\") == r"a\|b\*c\_d\`e" + "\\\\"


# --- the page


def test_the_page_needs_nothing_but_itself_and_what_lies_beside_it(tmp_path, draws_nothing):
    fake_runs.write(tmp_path / "run", audio_root=fake_runs.recordings(tmp_path / "audio"), skill=0.0)
    found = build.write([tmp_path / "run"], tmp_path / "out" / "report.html")
    text = found.page.read_text()
    page = html_pages.Page(text)
    assert not {"iframe", "object", "embed", "form"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") or name == "style" for _, found in page.tags for name in found)
    sources = [found[name] for _, found in page.tags for name in ("src", "href") if name in found]
    beside = {urllib.parse.unquote(source) for source in sources if not source.startswith(("data:", "#"))}
    assert {path.relative_to(tmp_path / "out").as_posix() for path in found.files[1:]} == beside
    assert sum(name.startswith("report_audio/") for name in beside) >= 2
    (policy,) = [found["content"] for tag, found in page.tags if found.get("http-equiv") == "Content-Security-Policy"]
    digests = [
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        for tag in ("style", "script")
        for part in re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
    ]
    assert len(digests) == 2 and sum(tag == "script" for tag, _ in page.tags) == 1
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; img-src data:; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    identities = {found["id"] for _, found in page.tags if "id" in found}
    assert {source[1:] for source in sources if source.startswith("#")} == identities
    assert all(found.get("alt") for tag, found in page.tags if tag == "img")


@pytest.mark.parametrize("alone", [False, True])
def test_of_many_pictures_the_page_shows_the_files_unless_it_is_to_be_sent_alone(
    alone, tmp_path, draws_nothing, monkeypatch
):
    fake_runs.write(tmp_path / "run")
    monkeypatch.setattr(build, "_INSIDE", 4 * 2 * len(b"picture") - 1)  # of four pictures in two themes
    found = build.write([tmp_path / "run"], tmp_path / "out" / "r.html", formats=["pdf"], embed_audio=alone)
    page = html_pages.Page(found.page.read_text())
    seen = [attributes for tag, attributes in page.tags if tag == "img"]
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    files = {path.relative_to(tmp_path / "out").as_posix() for path in found.files if path.suffix == ".png"}
    assert len(seen) == 8
    if alone:
        assert all(each["src"].startswith("data:image/png;base64,") for each in seen) and not files
        assert "img-src data:;" in policy and "send that folder along" not in page.shown()
        return
    assert {each["src"] for each in seen} == files and len(files) == 8
    assert all(each["loading"] == "lazy" for each in seen)
    assert all(("_dark.png" in each["src"]) == (each["class"] == "dark") for each in seen)
    assert "img-src data: 'self' file:;" in policy and "pictures lie in r_figures/: send that folder" in page.shown()
    monkeypatch.setattr(build, "_INSIDE", 4 * 2 * len(b"picture"))
    text = build.write([tmp_path / "run"], tmp_path / "out" / "r.html", formats=["pdf"]).page.read_text()
    assert text.count("data:image/png;base64,") == 8 and "_dark.png" not in text


def test_an_incomplete_run_is_marked_at_the_top_and_in_every_table_and_picture(tmp_path, monkeypatch):
    fake_runs.write(tmp_path / "vivae" / "half", system="half", folds=2)
    fake_runs.write(tmp_path / "vivae" / "whole", system="whole")
    sheets = fake_runs.collect_sheets(monkeypatch)
    found = build.write([tmp_path], tmp_path / "out" / "report.html", formats=["png"])
    assert found.warnings == ("half on VIVAE: 2 of 3 folds are done.",)
    text = found.page.read_text()
    assert text.index("half on VIVAE: 2 of 3 folds") < text.index("<nav")
    for file in found.files[1:]:
        if file.suffix in (".md", ".tex"):
            words = file.read_text()
            assert "half on VIVAE: 2 of 3 folds are done" in words
            assert re.search("half (†|.textdagger)", words) and not re.search("whole (†|.textdagger)", words)
    for sheet in sheets:
        words = " ".join(item.get_text() for item in sheet.findobj(lambda artist: hasattr(artist, "get_text")))
        assert "half" not in words or "2 of 3 folds" in words
    assert sum("half" in str([t.get_text() for t in s.findobj(lambda a: hasattr(a, "get_text"))]) for s in sheets) == 4
    # The card, tables III and IV, pairs (in three metrics), recalls, title, runs
    assert html_pages.Page(text).words.count("half \N{DAGGER}") == 9
    assert "half" not in html_pages.Page(text).words


@pytest.mark.slow
def test_everything_lies_beside_the_page_and_the_same_runs_give_the_same_bytes(tmp_path):
    folder = hostile(tmp_path / "runs", "/../$\\no{x$ \u6f22")
    found = [build.write([folder], tmp_path / place / "r.html", formats=["png", "pdf"]) for place in "ab"]
    names = [sorted(str(path.relative_to(one.page.parent)) for path in one.files) for one in found]
    assert names[0] == names[1]
    tables = {f"r_{name}.{kind}" for name in ("scores", "pairs") for kind in ("md", "tex")}
    pictures = {name for name in names[0] if name.startswith("r_figures/")}
    copies = {name for name in names[0] if name.startswith("r_runs/")}
    assert set(names[0]) == {"r.html"} | tables | pictures | copies
    assert len(copies) == 2 and all(re.fullmatch(r"r_runs/[\w.-]+/predictions.csv", name) for name in copies)
    # a map, the recalls, and two of each run
    assert len(pictures) == 2 * 6 and all(re.fullmatch(r"r_figures/[\w.-]+\.(png|pdf)", name) for name in pictures)
    signs = {".png": b"\x89PNG", ".pdf": b"%PDF"}
    for one, other in zip(*(one.files for one in found)):
        assert one.read_bytes() == other.read_bytes(), one.name
        assert one.read_bytes().startswith(signs.get(one.suffix, b""))


# --- pictures


def test_colours_and_markers_tell_64_names_apart():
    assert len({drawing.style(place) for place in range(64)}) == 64
    assert len({drawing.style(place)[0] for place in range(8)}) == 8


def test_the_map_is_the_same_every_time_and_refuses_what_has_none():
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(15, 6)), 8 + rng.normal(size=(15, 6))]).astype(np.float32)
    points = report_figures.flatten(vectors)
    np.testing.assert_array_equal(points, report_figures.flatten(vectors))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(30)
    np.testing.assert_array_equal(distance.argmin(1) < 15, np.arange(30) < 15)  # like stays beside like
    assert report_figures.flatten(vectors[:, :1]).shape == (30, 2)
    for bad in (vectors[:4], np.ones((9, 3), np.float32)):
        with pytest.raises(errors.InputError, match=f"no map of these {len(bad)} clips"):
            report_figures.flatten(bad)


def test_models_share_one_palette_and_one_legend_in_the_map(tmp_path, monkeypatch):
    """The second model lists its classes in another order; a class keeps its colour."""
    sheets = fake_runs.collect_sheets(monkeypatch)
    pairs = []
    for system, labels in (("a", ("x", "y")), ("b", ("y", "x"))):
        run = report_runs.read(fake_runs.write(tmp_path / system, system=system, labels=labels, planned=2, folds=2))
        pairs.append((run, details.embeddings(run)))
    report_figures.tsne(pairs, "tsne", [])
    (sheet,) = sheets
    assert [panel.get_title() for panel in sheet.axes] == ["a", "b"]
    (legend,) = sheet.legends
    assert [text.get_text() for text in legend.get_texts()] == ["x", "y"] and not any(
        p.get_legend() for p in sheet.axes
    )
    for panel, (run, found) in zip(sheet.axes, pairs):
        for own, spots in zip(np.unique(found.labels), panel.collections):
            colour, _ = drawing.style(["x", "y"].index(run.labels[own]))
            assert matplotlib_hex(spots.get_facecolor()[0]) == colour
            assert len(spots.get_offsets()) == (found.labels == own).sum()


def matplotlib_hex(colour):
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour[:3])


def test_a_run_that_left_no_curves_vectors_or_predictions_has_no_section_of_them(tmp_path):
    folder = fake_runs.write(tmp_path / "run", curves=False, vectors=False, folds=2, planned=2)
    (folder / "predictions.csv").unlink()
    text = build.write([folder], tmp_path / "report.html", formats=["png"]).page.read_text()
    assert not re.search("embeddings|predictions|[Cc]urves|wrong</h4>|not recorded", html_pages.Page(text).shown())
    assert {path.name for path in tmp_path.glob("report_figures/*")} == {
        "confusion_VIVAE_hubert-ls_strict.png",
        "recall_VIVAE.png",
    }


def test_the_mean_curve_ends_where_fewer_than_half_of_the_folds_go_on(tmp_path):
    run = report_runs.read(fake_runs.write(tmp_path / "run"))
    rows = [
        {"fold": fold, "epoch": epoch, "split": "train", "loss": float(fold)}
        for fold, last in enumerate((2, 4, 9))
        for epoch in range(1, last + 1)
    ]
    panel = figure.Figure().subplots()
    report_figures._folds(panel, rows, "train", "loss", "red", "mean")
    *thin, mean = panel.lines
    assert [len(line.get_xdata()) for line in thin] == [2, 4, 9]
    assert list(mean.get_xdata()) == [1, 2, 3, 4] and list(mean.get_ydata()) == [1, 1, 1.5, 1.5]
    assert report_figures.curves(run, [], "c", []).images["png"].startswith(b"\x89PNG")


def test_the_name_of_an_earlier_set_beside_another_does_not_reach_a_report(tmp_path):
    for at, (dataset, title, shown) in enumerate(
        (
            ("clips_5f233e14", "clips_5f233e14", "clips"),
            ("own", "of_5f233e14", "of_5f233e14"),
            ("cnvve", "CNVVE", "CNVVE"),
        )
    ):
        run = report_runs.read(fake_runs.write(tmp_path / str(at), dataset=dataset, title=title))
        assert (run.title, run.dataset) == (shown, dataset)
