"""Figures: one readable PNG each, also for one epoch, one class, many models and odd names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import fake_runs as fake
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ductal.errors import RunError
from ductal.evaluation import figures, figures_training
from ductal.evaluation.drawing import PALETTE, short
from ductal.evaluation.metrics import binary_metrics

RNG = np.random.default_rng(5)
Y = (RNG.random(300) < 0.3).astype(np.int8)
P = (1 / (1 + np.exp(-(2 * Y - 1 + RNG.normal(size=300))))).astype(np.float32)


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    """A layout that collapses or a glyph that lacks shows as a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def check(path: Path) -> np.ndarray:
    """The picture as an array, once it is a PNG of README width with something on it."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 1350
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels < 128).any()
    # Nothing touches the edge, so nothing was cut off.
    edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    assert all((edge == 255).all() for edge in edges)
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    return pixels


@pytest.mark.parametrize(
    "stages", [[("all", 1)], [("head", 3), ("a-very-long-name-for-a-stage", 1), ("all", 4)]]
)
@pytest.mark.parametrize("full", [True, False])
def test_curves(tmp_path: Path, stages: list[tuple[str, int]], full: bool) -> None:
    path = tmp_path / "curves.png"
    assert figures_training.curves(fake.history(*stages, full=full), path) == path
    height = check(path).shape[0]
    assert (height > 900) == full


def test_curves_mark_the_kept_epoch_and_the_stages(tmp_path: Path) -> None:
    history = fake.history(("head", 3), ("all", 4))
    marked = check(figures_training.curves(history, tmp_path / "a" / "f.png"))
    plain = check(figures_training.curves(history.assign(best=False, stage="all"), tmp_path / "b" / "f.png"))
    orange = np.array([0xE6, 0x9F, 0x00])
    assert (marked == orange).all(axis=-1).sum() > 100
    assert not (plain == orange).all(axis=-1).any()


def test_no_epochs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no epochs"):
        figures_training.curves(pd.DataFrame({"epoch": []}), tmp_path / "f.png")


def test_confusion(tmp_path: Path) -> None:
    check(figures.confusion(Y, P, 0.437, tmp_path / "f.png"))


def test_confusion_is_shaded_by_the_share_of_the_true_class(tmp_path: Path) -> None:
    """All 3 cancer patches right and all 297 others right look the same: dark on the diagonal."""
    perfect = check(figures.confusion(Y, Y.astype(float), 0.5, tmp_path / "f.png"))
    darkest = np.array([8, 48, 107])  # the top of Matplotlib's Blues
    assert (perfect == darkest).all(axis=-1).sum() > 4 * 200 * 200


@pytest.mark.parametrize("n", [1, 6, 9])
def test_roc_pr_with_many_long_names(tmp_path: Path, n: int) -> None:
    models = [(f"model-{i}-with-a-very-long-name-{'x' * 50}", Y, P) for i in range(n)]
    pixels = check(figures.roc_pr(models, tmp_path / "f.png"))
    for colour in PALETTE[: min(n, len(PALETTE))]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == rgb).all(axis=-1).any()


def test_roc_pr_of_one_class_says_undefined(tmp_path: Path) -> None:
    check(figures.roc_pr([("one class", np.zeros(9, int), RNG.random(9))], tmp_path / "f.png"))
    with pytest.raises(RunError, match="no model"):
        figures.roc_pr([], tmp_path / "g.png")


def test_sample_patches_shows_the_surest_first(tmp_path: Path) -> None:
    pixels = np.full((300, 50, 50, 3), 200, np.uint8)
    surest = int(np.argmax(np.where(Y == 1, P, -1)))
    least = int(np.argmin(np.where((Y == 1) & (P >= 0.5), P, 2)))
    pixels[surest], pixels[least] = (255, 0, 255), (0, 255, 255)
    ids = [f"10253_idx5_x{50 * i + 1}_y1101_class{y}" for i, y in enumerate(Y)]
    shown = check(figures.sample_patches(pixels, Y, P, tmp_path / "f.png", patch_ids=ids))
    assert (shown == (255, 0, 255)).all(axis=-1).sum() > 5000
    assert not (shown == (0, 255, 255)).all(axis=-1).any()


def test_sample_patches_of_few_and_foreign_names(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (2, 50, 50, 3), dtype=np.uint8)
    ids = ["a$b$<script>alert(1)</script>", "x"]
    check(figures.sample_patches(pixels, [1, 0], [0.9, 0.8], tmp_path / "f.png", patch_ids=ids))
    with pytest.raises(RunError, match="Received: 2, 3 and 3"):
        figures.sample_patches(pixels, [0, 1, 0], [0.1, 0.2, 0.3], tmp_path / "g.png")


@pytest.mark.parametrize("n", [1, 12])
def test_leaderboard_bars(tmp_path: Path, n: int) -> None:
    rows = pd.DataFrame(
        [{"name": f"{'long-' * 9}{i}", "control": i % 3 == 2, **binary_metrics(Y, P)} for i in range(n)]
    )
    rows.loc[0, "roc_auc"] = np.nan
    check(figures.leaderboard_bars(rows, tmp_path / "f.png"))
    with pytest.raises(RunError, match="no row"):
        figures.leaderboard_bars(rows.iloc[:0], tmp_path / "g.png")


def test_leaderboard_bars_draw_the_intervals_that_there_are(tmp_path: Path) -> None:
    rows = pd.DataFrame([{"name": name, "control": False, **binary_metrics(Y, P)} for name in "ab"])
    plain = check(figures.leaderboard_bars(rows, tmp_path / "f.png"))
    for metric in ("roc_auc", "balanced_accuracy"):
        rows[f"{metric}_low"], rows[f"{metric}_high"] = [0.3, np.nan], [0.999, np.nan]
    drawn = check(figures.leaderboard_bars(rows, tmp_path / "f.png"))
    # The bar's blue at 35 % on white.
    bar = np.array([165, 207, 231])
    assert (np.abs(drawn.astype(int) - bar).max(axis=-1) < 6).sum() > 1000
    assert (np.abs(plain.astype(int) - bar).max(axis=-1) < 6).sum() < 100


def test_drawing_leaves_nothing_global(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    figures.confusion(Y, P, 0.5, tmp_path / "f.png")
    assert dict(mpl.rcParams) == before


def test_a_dollar_is_no_mathematics() -> None:
    assert short("a$b", 9) == r"a\$b"
    assert len(short("x" * 99, 20)) == 20
