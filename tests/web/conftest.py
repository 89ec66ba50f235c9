"""One run for all tests of the web application, and one server for most."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "evaluation")]
pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("openvino")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from web_server import make_run

    return make_run(tmp_path_factory.mktemp("runs") / "dark-is-tumour")


@pytest.fixture(scope="session")
def server(run: Path) -> Iterator[object]:
    from web_server import Server

    with Server(run) as started:
        yield started
