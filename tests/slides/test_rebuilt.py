"""A slide put together by hand: places, areas, outcomes, and the very pixels it was cut from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ductal.slides.grid import TileGrid
from ductal.slides.rebuilt import RebuiltSlide, places

RNG = np.random.default_rng(3)
# Two rows of three places; the last of the first row was never cut.
GRID = TileGrid(np.array([0, 1, 0, 1, 2]), np.array([0, 0, 1, 1, 1]), (2, 3))


def slide(**changes: object) -> RebuiltSlide:
    settings: dict = {
        "patient": "7", "role": "validation patient", "track": "patch-only", "grid": GRID,
        "left_out": (np.array([2]), np.array([0])), "patch_ids": [f"a{number}" for number in range(5)],
        "labels": np.array([1, 1, 0, 0, 1], np.int8), "probs": np.array([0.9, 0.2, 0.6, 0.1, 0.5]),
        "threshold": 0.5, "spacing_um": 4.0, "rows": np.arange(5),
    }  # fmt: skip
    return RebuiltSlide(**settings | changes)


def test_figures_count_patches_and_square_millimetres() -> None:
    found = slide().figures()
    assert [found[name] for name in ("tp", "fn", "fp", "tn")] == [2, 1, 1, 1]
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["specificity"] == pytest.approx(0.5)
    assert found["f1"] == pytest.approx(4 / 6)
    assert found["roc_auc"] == pytest.approx(4 / 6)
    assert found["tissue_mm2"] == pytest.approx(5 * 0.04)  # a patch is 0.2 mm wide
    assert found["tumour_mm2"] == pytest.approx(3 * 0.04)
    assert found["tumour_mm2_model"] == pytest.approx(3 * 0.04)
    assert slide().missing() == 1


def test_areas_are_unknown_without_a_spacing_and_figures_without_both_classes() -> None:
    assert np.isnan(slide(spacing_um=None).figures()["tumour_mm2"])
    found = slide(labels=np.zeros(5, np.int8)).figures()
    assert np.isnan(found["roc_auc"])
    assert np.isnan(found["recall"])


def test_the_table_says_what_happened_to_each_patch() -> None:
    table = slide().table()
    assert table["outcome"].tolist() == ["TP", "FN", "FP", "TN", "TP"]
    assert table["column"].tolist() == [0, 1, 0, 1, 2]
    assert table["called"].tolist() == [1, 0, 1, 0, 1]


def test_tissue_is_what_was_cut() -> None:
    whole = RNG.integers(0, 256, (100, 150, 3), dtype=np.uint8)
    cut = [whole[50 * y : 50 * y + 50, 50 * x : 50 * x + 50] for x, y in zip(GRID.columns, GRID.rows, strict=True)]
    pixels = np.stack(cut)
    whole[:50, 100:] = 255
    np.testing.assert_array_equal(slide().tissue(pixels), whole)
    small = slide().tissue(pixels, 10)
    means = whole.reshape(20, 5, 30, 5, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(small, np.rint(means).astype(np.uint8))


class FakeCohort:
    """What `places` reads."""

    table = pd.DataFrame({"x": [101, 151, 101], "y": [201, 201, 251]})
    quarantine = pd.DataFrame(
        {
            "name": ["7/0/7_idx5_x51_y201_class0.png", "7/0/7_idx5_x151_y201_class0.png", "unknown.png", "8_x.png"],
            "patient": ["7", "7", "7", "8"],
        }
    )


def test_patches_that_could_not_be_used_have_a_place_of_their_own() -> None:
    """The grid reaches to them; one whose place a good patch holds, or whose place is unknown, is not shown."""
    grid, (columns, rows) = places(FakeCohort(), "7", np.arange(3))  # type: ignore[arg-type]
    assert grid.shape == (2, 3)
    assert grid.columns.tolist() == [1, 2, 1]
    assert grid.rows.tolist() == [0, 0, 1]
    assert columns.tolist() == [0]
    assert rows.tolist() == [0]
    assert places(FakeCohort(), "9", np.arange(3))[0].shape == (2, 2)  # type: ignore[arg-type]
