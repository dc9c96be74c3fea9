"""Pages in a real browser. Importing this skips a module of tests where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs chromium", allow_module_level=True)


def launched() -> Iterator[Any]:
    """The browser, for a fixture."""
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def page_at(browser: Any, address: str, **settings: Any) -> Iterator[Any]:
    """A page in its own window; any error in the browser's console fails the test."""
    context = browser.new_context(**{"viewport": {"width": 1000, "height": 800}, **settings})
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda err: complaints.append(str(err)))
    opened.set_default_timeout(60_000)
    opened.goto(address)
    yield opened
    context.close()
    expected = "status of 4", "net::ERR_"  # refusals, and servers and files that are gone
    assert [one for one in complaints if not any(words in one for words in expected)] == []
