"""One server and one real browser for all tests of the pages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from browser import TOKEN, open_page, start_browser
from web_server import Server


@pytest.fixture(scope="package")
def server(run: Path) -> Iterator[Server]:
    """`ductal serve` as a user starts it, with a token."""
    with Server(run, "--token", TOKEN) as running:
        running.client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; of each module, since while Playwright runs no other test can start an event loop."""
    with start_browser() as running:
        yield running


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """A new tab of a desktop window on the start page, which has the token; no error may come up in its console."""
    with open_page(browser, server.url, token=TOKEN) as opened:
        yield opened
