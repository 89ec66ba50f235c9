"""Figures of calibration, decisions and failures: one whole PNG each, also of few patches and odd names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ductal.errors import RunError
from ductal.evaluation import figures_decision as decision
from ductal.evaluation import figures_failures as failures
from ductal.evaluation.failures import GROUP_COLUMNS

RNG = np.random.default_rng(5)
Y = (RNG.random(600) < 0.3).astype(np.int8)
P = (1 / (1 + np.exp(-(2 * Y - 1 + RNG.normal(size=600))))).astype(np.float32)
PATIENTS = np.arange(600) % 9
ODD = "a$b$ " + "long " * 30


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    """A layout that collapses or a glyph that lacks shows as a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def check(path: Path) -> None:
    """It is a PNG of README width with something on it, and nothing was cut off."""
    with Image.open(path) as image:
        assert (image.format, image.width) == ("PNG", 1350)
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels < 128).any()
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()


def test_reliability(tmp_path: Path) -> None:
    path = tmp_path / "f.png"
    assert decision.reliability([("before", Y, P, PATIENTS), (ODD, Y, P**2, PATIENTS)], path) == path
    check(path)
    check(decision.reliability([("of one patient", Y, P, np.zeros(600))], path))
    check(decision.reliability([("few", [0, 1, 1], [0.1, 0.4, 0.9], None)], path))
    check(decision.reliability([("one class", np.zeros(40, int), P[:40], PATIENTS[:40])], path))


@pytest.mark.parametrize("limits", [None, (0.3, 0.6), (0.0, 1.0)])
def test_risk_coverage(tmp_path: Path, limits: tuple[float, float] | None) -> None:
    models = [("model", Y, P), (ODD, Y, 1 - P), ("perfect", Y, Y.astype(float)), ("few", [0, 1], [0.3, 0.4])]
    check(decision.risk_coverage(models, [0.4, 0.5, 0.5, 0.5], tmp_path / "f.png", limits=limits, aim=0.05))
    check(decision.risk_coverage(models[2:3], [0.5], tmp_path / "f.png", limits=limits))


def test_decision_curve(tmp_path: Path) -> None:
    check(decision.decision_curve([("model", Y, P), (ODD, Y, P**2), ("third", Y, 1 - P)], tmp_path / "f.png"))
    check(decision.decision_curve([("no cancer", np.zeros(600, int), P)], tmp_path / "f.png"))


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f.png"
    for draw in (
        lambda: decision.reliability([], path),
        lambda: decision.risk_coverage([("empty", [], [])], [0.5], path),
        lambda: decision.decision_curve([], path),
        lambda: failures.errors_by_distance(groups("distance", 0), path),
        lambda: failures.errors_by_stain(groups("group", 0), path),
    ):
        with pytest.raises(RunError, match="There is no"):
            draw()
    assert not path.exists()


def groups(column: str, n: int, **more: object) -> pd.DataFrame:
    table = pd.DataFrame({column: [str(k + 1) for k in range(n)]}).assign(**dict.fromkeys(GROUP_COLUMNS, 0.2))
    return table.assign(n=12_345, patients=7, low=0.1, high=0.4, **more)


@pytest.mark.parametrize("n", [1, 5])
def test_failures(tmp_path: Path, n: int) -> None:
    unsure = groups("distance", n).assign(low=np.nan, high=np.nan, missed_rate=np.nan)
    check(failures.errors_by_distance(unsure, tmp_path / "f.png"))
    stains = [groups("group", n, stain=stain, lowest=-0.123, highest=1.2) for stain in ("haematoxylin", "eosin")]
    check(failures.errors_by_stain(pd.concat(stains), tmp_path / "f.png"))
