"""Lets the tests of this folder import `small_studies`, and keeps them where Optuna is not installed."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="the extra tune is not installed")
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all trials of a test; one test has the plots."""
    if "with_plots" not in request.fixturenames:
        monkeypatch.setattr("ductal.tune.results.draw_plots", lambda *_: {})


@pytest.fixture
def with_plots() -> None:
    """The test has them."""
