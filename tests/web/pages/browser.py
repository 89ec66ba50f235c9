"""Headless Chromium: starting it, and what tests do with a page."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TOKEN = "a-token-for-tests"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
AXE = "DUCTAL_AXE"  # names axe.min.js of the npm package axe-core
LATE = "DUCTAL_LATE"  # set: what the page waits for comes later, see late.js


@contextmanager
def start_browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright; skips where one of them is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (extra test)")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()


@contextmanager
def open_page(
    browser: Any, url: str, *, token: str = "", scripts: tuple[Path, ...] = (), ready: bool = True, **settings: Any
) -> Iterator[Any]:
    """A tab with a profile of its own; at its end, no script and no policy may have complained in the console.

    Args:
        browser: see `start_browser`.
        url: to open.
        token: kept as the page keeps it.
        scripts: to run in each document before the page's own.
        ready: wait until the page says that it has all it needs.
        settings: of the context, such as viewport or color_scheme.
    """
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | settings))
    if token:
        context.add_init_script(f"sessionStorage.setItem('ductal.token', '{token}')")
    if os.environ.get(LATE):
        scripts = (Path(__file__).with_name("late.js"), *scripts)
    for script in scripts:
        context.add_init_script(path=script)
    page = context.new_page()
    page.set_default_timeout(60_000)  # machines that run tests are busy
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(url)
    if ready:
        page.wait_for_selector("body[data-ready]")
    yield page
    context.close()
    # The browser reports each answer of 400 and above by itself; tests of errors want those.
    assert [each for each in complaints if "Failed to load resource" not in each] == []


def give(page: Any, *files: Path | dict[str, Any]) -> None:
    """Choose files, as the user does by the button."""
    page.set_input_files("#files", list(files))


def until(page: Any, expression: str, seconds: float = 60.0) -> None:
    """Wait until an expression is true in the page. Playwright's own way of waiting evaluates text inside the page,
    which its content security policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {expression}"
        page.wait_for_timeout(30)


def axe_script() -> Path:
    """axe-core; skips where it is missing."""
    path = Path(os.environ.get(AXE, ""))
    if not path.is_file():
        pytest.skip(f"axe-core is not there: npm install axe-core, and name its axe.min.js in {AXE}")
    return path


def violations(page: Any) -> list[str]:
    """What axe-core holds to be serious or critical on the page as it is now."""
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{each['id']}: {each['help']}: {node['target']}"
        for each in found if each["impact"] in ("serious", "critical") for node in each["nodes"]
    ]  # fmt: skip


def sideways(page: Any) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth"))
