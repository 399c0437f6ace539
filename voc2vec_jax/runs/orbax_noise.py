"""What Orbax and TensorStore print and raise when a checkpoint cannot be written or read, in one sentence."""

import logging
import os
import re
import sys
from typing import Any


def silence() -> None:
    """Suppress the tracebacks of faults that are told in one sentence where the save is waited for."""
    for name, kept in (("absl", _not_from_orbax), ("asyncio", _not_of_an_array)):
        logger = logging.getLogger(name)
        if kept not in logger.filters:
            logger.addFilter(kept)
    if sys.unraisablehook is not _hook:
        global _before
        _before, sys.unraisablehook = sys.unraisablehook, _hook


def reason(error: BaseException) -> str:
    """The system's words for an OSError, or for the one that an Orbax or TensorStore message quotes."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code.group(1)))
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"


_before = sys.unraisablehook


def _hook(unraisable: Any) -> None:
    """As before, but not for arrays whose write ends after Orbax has left its loop, because another one failed.

    TensorStore's threads report that here.
    """
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        _before(unraisable)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def _not_of_an_array(record: logging.LogRecord) -> bool:
    """Whether it is not about the write of an array that nobody waits for any more."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, (OSError, ValueError)) and "was never retrieved" in record.getMessage())
