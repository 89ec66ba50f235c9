"""Gates on tiles whose answer is known: glass, ink, folds, blur; and tissue is let through."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ductal.slides.tissue import Gate, Stain, densities, focus, gate_tiles, may_hold_tissue

STAIN = Stain((243.0, 243.0, 243.0), 400.0)
RNG = np.random.default_rng(5)


def gate(tile: np.ndarray, stain: Stain = STAIN) -> Gate:
    return Gate(int(gate_tiles(tile[None].astype(np.uint8), stain)[0][0]))


def test_tissue_is_judged(painted: np.ndarray) -> None:
    gates, shares = gate_tiles(painted, STAIN)
    assert (gates == Gate.tissue).all()
    assert shares.min() > 0.3


@pytest.mark.parametrize("bright", [243, 225])
def test_glass(bright: int, painted: np.ndarray) -> None:
    empty = np.clip(bright + RNG.normal(0, 2, (50, 50, 3)), 0, 255).astype(np.uint8)
    overview = np.concatenate([np.tile(empty, (1, 3, 1)), np.concatenate(list(painted[:3]), axis=1)])
    stain = Stain.of(overview)
    assert np.abs(np.array(stain.glass) - bright).max() < 2
    assert 100 < stain.density < 1000
    found, shares = gate_tiles(empty[None], stain)
    assert (found[0], shares[0]) == (Gate.glass, 0)
    crumb = empty.copy()
    crumb[:10, :20] = painted[0][:10, :20]  # 8 % of the tile
    assert gate(crumb, stain) == Gate.glass


@pytest.mark.parametrize(
    "colour", [(30, 60, 170), (40, 70, 120), (20, 130, 60), (30, 30, 32), (215, 30, 45)], ids=str
)
def test_ink_over_tissue(colour: tuple[int, int, int], painted: np.ndarray) -> None:
    tile = painted[0].copy()
    tile[:, :20] = np.clip(np.array(colour) + RNG.normal(0, 4, (50, 20, 3)), 0, 255)
    assert gate(tile) == Gate.pen
    stroke = painted[0].copy()
    stroke[:, :5] = colour  # a tenth: the rest can be judged
    assert gate(stroke) == Gate.tissue


def test_folds_are_twice_as_dense(painted: np.ndarray) -> None:
    dense = painted[np.argmax(densities(painted, STAIN.glass).mean(axis=(0, 2, 3)))]
    folded = dense.astype(float)
    folded[:, :25] = 243 * (folded[:, :25] / 243) ** 2.6
    assert gate(dense) == Gate.tissue
    assert gate(folded) == Gate.fold


def test_out_of_focus(painted: np.ndarray) -> None:
    for sigma, blurred in ((0.0, False), (1.5, True), (3.0, True)):
        tiles = ndimage.gaussian_filter(painted.astype(np.float32), (0, sigma, sigma, 0)).astype(np.uint8)
        assert ((gate_tiles(tiles, STAIN)[0] == Gate.blur) == blurred).all()


def test_focus_of_known_pictures() -> None:
    slope = np.tile(np.arange(50, dtype=np.int16) * 20, (1, 50, 1))
    edge = np.where(np.arange(50) < 25, 0, 1000).astype(np.int16)
    noise = RNG.normal(500, 50, (1, 50, 50)).astype(np.int16)
    assert focus(slope)[0] == pytest.approx(1 / 9)
    assert focus(np.tile(edge, (1, 50, 1)))[0] == pytest.approx(47 / 49 / 3, rel=1e-3)
    assert focus(noise)[0] == pytest.approx(1, rel=0.1)
    assert focus(np.zeros((1, 50, 50), np.int16))[0] == 0


def test_the_strength_of_the_stain_does_not_change_focus(painted: np.ndarray) -> None:
    total = densities(painted, STAIN.glass).sum(axis=0).astype(np.int16)
    np.testing.assert_allclose(focus(total), focus((total // 2).astype(np.int16)), rtol=0.02)


def test_densities() -> None:
    found = densities(np.array([[243, 121, 0], [255, 200, 10]], np.uint8), STAIN.glass)
    assert found.dtype == np.int16
    expected = [[0, 0], [693, 194], [5497, 3099]]  # ln(244 / 122), ...; brighter than glass counts as glass
    np.testing.assert_array_equal(found, expected)


def test_tiles_that_may_hold_tissue_are_those_with_a_faint_pixel() -> None:
    overview = np.full((20, 30, 3), 243, np.uint8)
    overview[7, 12] = (235, 215, 235)
    edges = np.linspace(0, 20, 5), np.linspace(0, 30, 7)
    expected = np.zeros((4, 6), bool)
    expected[1, 2] = True
    np.testing.assert_array_equal(may_hold_tissue(overview, STAIN, edges), expected)
    fine = np.linspace(0, 20, 81), np.linspace(0, 30, 121)  # tiles smaller than a pixel
    assert may_hold_tissue(overview, STAIN, fine).sum() >= 9 * 16


def test_no_glass_and_no_tissue() -> None:
    assert Stain.of(np.full((9, 9, 3), 243, np.uint8)).density == 0
    assert Stain.of(np.full((9, 9, 3), 120, np.uint8)).glass == (243.0,) * 3
