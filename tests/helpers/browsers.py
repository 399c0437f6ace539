"""Chromium, for tests that look at pages. Where it is not installed they are skipped, with that reason."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needed = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@contextlib.contextmanager
def started() -> Iterator[Any]:
    """A browser of playwright."""
    from playwright import sync_api  # here: the tests of a module that need no browser do not wait for it

    with sync_api.sync_playwright() as control:
        browser = control.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
