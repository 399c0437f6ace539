"""Recordings in open files."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class OpenFile:
    """An open, seekable binary file, which is read from its beginning; it may be given twice, also at once."""

    file: Any
    name: str
    _lock: Any = dataclasses.field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return self.name

    @contextlib.contextmanager
    def held(self) -> Iterator[Any]:
        """The file, for one reader at a time."""
        with self._lock:
            yield self.file
