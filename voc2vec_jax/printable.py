"""Text from strangers (names, labels, headers, errors of other libraries) as it may be printed.

A terminal obeys control characters and OSC sequences, and characters that set the writing direction make a line look
like another. They are written out as in Python, such as \\x1b; what is printable stays, so that doing it twice is the
same as once.
"""

import re
import reprlib
import sys
from typing import Any

# C0 and C1 controls, line and paragraph separators, surrogates, annotations, tags, and the marks, embeddings, overrides
# and isolates of the bidirectional algorithm (UAX 9). Joiners stay: names in Persian and emoji need them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_UNSAFE_IN_LINES = re.compile(f"(?![\t\n]){_UNSAFE.pattern}")


def line(text: str) -> str:
    """`text` on one line, with every character written out that a terminal would obey or not show."""
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_written_out, text)


def lines(text: str) -> str:
    """As `line`, for text of several lines: line feeds and tabs stay."""
    return _UNSAFE_IN_LINES.sub(_written_out, text)


def show(text: Any, file: Any = None, flush: bool = False) -> None:
    """Print `lines(str(text))`, on stdout unless there is a `file`."""
    print(lines(str(text)), file=sys.stdout if file is None else file, flush=flush)


class _Repr(reprlib.Repr):
    """Looks at the first few items of whatever it is given."""

    def __init__(self, most: int):
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple = 3, 4, 4
        self.maxstring = self.maxother = most

    def repr_dict(self, x: dict, level: int) -> str:
        return super().repr_dict(x, level) if len(x) < self.maxdict else f"a dict of {len(x)} items"

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 128 else f"a number of {x.bit_length()} bits"


def value(found: Any, most: int = 80) -> str:
    """`repr` of a stranger's value on one line, in at most `most` characters and without looking at all of it."""
    return name(_Repr(most).repr(found), most)


def name(text: str, most: int = 80) -> str:
    """A stranger's name on one line, in at most `most` characters: its begin and its end."""
    return _cut(line(_cut(text, most)), most)


def _cut(text: str, most: int) -> str:
    begin = most * 2 // 3
    return text if len(text) <= most else f"{text[:begin]}...{text[begin + 3 - most :]}"


def _written_out(found: re.Match) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(found.group())
    return known or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
