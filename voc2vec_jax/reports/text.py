"""Tables, and their Markdown and LaTeX. The content of a cell is text, never markup."""

import itertools
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

DAGGER = "\N{DAGGER}"  # marks results of an incomplete run
DOUBLE_DAGGER = "\N{DOUBLE DAGGER}"  # marks results of a run whose tested clips leak from training
_PAGE_LINES = 48  # on a LaTeX page
DASH = "\N{EM DASH}"  # for a number that does not exist
MINUS = "\N{MINUS SIGN}"
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class TableColumn(NamedTuple):
    """`over` is a heading that neighbouring columns share; columns of numbers are right-aligned."""

    title: str
    over: str = ""
    number: bool = True


class Cell(NamedTuple):
    text: str
    strong: bool = False


class Group(NamedTuple):
    """Rows under a heading ("" for none)."""

    heading: str
    rows: Sequence[Sequence[Cell]]


class Table(NamedTuple):
    """A table with notes below it; with `folded`, the page shows its groups closed.

    `alarms` say what is wrong with its numbers, and come first wherever the table goes.
    """

    name: str  # stem of its files
    title: str
    columns: Sequence[TableColumn]
    groups: Sequence[Group]
    notes: Sequence[str] = ()
    folded: bool = False
    alarms: Sequence[str] = ()


def clean(text: str) -> str:
    """`text` on one line, without characters that control a terminal or the writing direction, or are undefined."""
    kept = []
    for char in text:
        if char.isspace():
            kept.append(" ")
        elif unicodedata.category(char) in ("Cc", "Cs", "Cn") or char in _DIRECTIONS:
            kept.append("\N{REPLACEMENT CHARACTER}")
        else:
            kept.append(char)
    return "".join(kept)


_PART = r"""[^\s/\\'"<>|:;,()]"""
# The folders of an absolute path, of one from the home folder and of one that leads upwards; parts hold no spaces.
_FOLDERS = re.compile(
    rf"(?<![\w.:/\\~}}-])(?:[A-Za-z]:[/\\](?:{_PART}+[/\\])*|(?:~\w*|(?:\.\./)*\.\.)?(?:/{_PART}+)*/)(?={_PART})"
)


def without_folders(text: str) -> str:
    """`text` with the name alone of every path of this machine; relative paths and addresses stay as they are."""
    return _FOLDERS.sub("", text.replace(f"{pathlib.Path.home()}/", "/"))


def to_markdown(text: str) -> str:
    """Escaped for a heading, a cell or the inside of a paragraph: no markup, HTML or link is left."""
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", clean(text)).strip()
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("://", "&#58;//"), ("www.", "www&#46;")):
        text = text.replace(sign, entity)
    return text


def _paragraph(text: str) -> list[str]:
    """Lines of a Markdown paragraph that does not become a heading or a list, whatever it begins with."""
    return [re.sub(r"^[#+=-]|(?<=^\d)[.)]", lambda found: f"&#{ord(found[0])};", to_markdown(text)), ""]


_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{char: f"\\{char}" for char in "{}$&#%_"},
    **{char: f"{{{char}}}" for char in "[]*`'!?-"},  # no optional argument, no ligature
    DAGGER: r"\textdagger{}",
    DOUBLE_DAGGER: r"\textdaggerdbl{}",
    DASH: r"\textemdash{}",
    MINUS: r"$-$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{GREEK CAPITAL LETTER DELTA}": r"$\Delta$",
    "\N{REPLACEMENT CHARACTER}": "?",
}


def to_latex(text: str) -> str:
    """Escaped for a cell or a caption of a UTF-8 document."""
    return "".join(_LATEX.get(char, char) for char in clean(text))


def markdown(tables: Iterable[Table], first: Sequence[str] = ()) -> str:
    """A document of all tables; the paragraphs `first` come before them."""
    lines = [line for text in first for line in _paragraph(text)]
    for table in tables:
        lines += [f"## {to_markdown(table.title)}", ""]
        lines += [line for alarm in table.alarms for line in _paragraph(alarm)]
        titles = [to_markdown(f"{column.over} {column.title}".strip()) for column in table.columns]
        rule = ["---:" if column.number else "---" for column in table.columns]
        for group in table.groups:
            lines += [f"### {to_markdown(group.heading)}", ""] if group.heading else []
            lines += [_bars(titles), _bars(rule)]
            lines += [_bars([_markdown_cell(cell) for cell in row]) for row in group.rows] + [""]
        lines += [line for note in table.notes for line in _paragraph(note)]
    return "\n".join(lines)


def _bars(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = to_markdown(cell.text)
    return f"**{text}**" if cell.strong and text else text


def latex(table: Table, first: Sequence[str] = ()) -> str:
    """A `table*` for \\input, or several when the rows do not fit on a page; the first line names the packages needed.

    The first caption holds `first` and the notes.
    """
    caption = " ".join(to_latex(text) for text in (f"{table.title}.", *first, *table.alarms, *table.notes))
    lines = [r"% needs \usepackage{booktabs,graphicx,textcomp} and \usepackage[T1]{fontenc}"]
    for groups in _pages(table.groups):
        lines += _latex_page(table.columns, groups, caption)
        caption = f"{to_latex(table.title)}, continued."
    return "\n".join([*lines, ""])


def _pages(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups split into pages of a limited number of lines; a group cut by a page's end repeats its heading."""
    pages: list[list[Group]] = [[]]
    room = _PAGE_LINES
    for group in groups:
        rows, heading = list(group.rows), group.heading
        while rows:
            if room < 4 and pages[-1]:
                pages.append([])
                room = _PAGE_LINES
            part, rows = rows[: room - 2], rows[room - 2 :]
            pages[-1].append(Group(heading, part))
            room -= len(part) + 2
            heading = f"{group.heading}, continued"
    return pages


def _latex_page(columns: Sequence[TableColumn], groups: Sequence[Group], caption: str) -> list[str]:
    spec = "".join("r" if column.number else "l" for column in columns)
    lines = [
        r"\begin{table*}",
        r"\centering\footnotesize",
        f"\\caption{{{caption}}}",
        f"\\resizebox{{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}}{{!}}{{\\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        *_latex_heads(columns),
    ]
    for group in groups:
        lines.append(r"\midrule")
        if group.heading:
            lines.append(f"\\multicolumn{{{len(spec)}}}{{l}}{{\\textit{{{to_latex(group.heading)}}}}} \\\\")
        lines += [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in group.rows]
    return [*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table*}"]


def spans(columns: Sequence[TableColumn]) -> list[tuple[str, int]]:
    """The shared headings and how many columns each covers."""
    return [(over, len(list(part))) for over, part in itertools.groupby(columns, key=lambda column: column.over)]


def _latex_heads(columns: Sequence[TableColumn]) -> list[str]:
    lines, start, rules = [], 1, []
    cells = []
    for over, width in spans(columns):
        cells.append(f"\\multicolumn{{{width}}}{{c}}{{{to_latex(over)}}}")
        rules += [f"\\cmidrule(lr){{{start}-{start + width - 1}}}"] if over else []
        start += width
    if rules:
        lines += [" & ".join(cells) + r" \\", " ".join(rules)]
    return [*lines, " & ".join(to_latex(column.title) for column in columns) + r" \\"]


def _latex_cell(cell: Cell) -> str:
    text = to_latex(cell.text)
    return f"\\textbf{{{text}}}" if cell.strong else text
