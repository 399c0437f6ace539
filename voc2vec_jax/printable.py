"""Text from strangers (names, labels, headers, errors of other libraries) as it may be printed.

A terminal obeys control characters and OSC sequences, and characters that set the writing direction make a line look
like another. They are written out as in Python, such as \\x1b; what is printable stays, so that doing it twice is the
same as once.
"""

import re

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


def _written_out(found: re.Match) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(found.group())
    return known or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
