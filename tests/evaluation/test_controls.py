"""Control models: right features, no memory of positions, the same answer twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ductal.errors import DataError
from ductal.evaluation import controls
from ductal.evaluation.controls import CONTROLS, colour_histogram, mean_colour
from ductal.evaluation.metrics import binary_metrics


@pytest.fixture(scope="module")
def patches() -> tuple[np.ndarray, np.ndarray]:
    """600 noisy patches; IDC is a little more purple."""
    rng = np.random.default_rng(3)
    y = (rng.random(600) < 0.3).astype(np.int8)
    base = np.where(y[:, None] == 1, [170, 120, 180], [215, 180, 210]) + rng.normal(0, 20, (600, 3))
    noise = rng.normal(0, 15, (600, 50, 50, 3))
    return np.clip(base[:, None, None] + noise, 0, 255).astype(np.uint8), y


def test_mean_colour_by_hand() -> None:
    patch = np.zeros((1, 2, 3, 3), np.uint8)
    patch[0, 0, 0] = (60, 120, 255)
    assert np.allclose(mean_colour(patch), [[10, 20, 42.5]])


def test_features_equal_the_plain_formulas_over_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "CHUNK", 4)
    pixels = np.random.default_rng(0).integers(0, 256, (11, 50, 50, 3), dtype=np.uint8)
    assert np.allclose(mean_colour(pixels), pixels.mean(axis=(1, 2)))
    expected = [
        np.concatenate([np.histogram(patch[..., c], bins=16, range=(0, 256))[0] / 2500 for c in range(3)])
        for patch in pixels
    ]
    assert np.allclose(colour_histogram(pixels), expected)


def test_white_and_black_fall_into_the_outer_bins() -> None:
    pixels = np.stack([np.zeros((50, 50, 3), np.uint8), np.full((50, 50, 3), 255, np.uint8)])
    found = colour_histogram(pixels).reshape(2, 3, 16)
    assert (found[0, :, 0] == 1).all()
    assert (found[1, :, 15] == 1).all()


@pytest.mark.parametrize("name", list(CONTROLS))
def test_controls_are_deterministic_and_blind_to_positions(name, patches) -> None:
    pixels, y = patches
    first = CONTROLS[name](seed=1).fit(pixels[:400], y[:400]).predict(pixels[400:])
    again = CONTROLS[name](seed=1).fit(pixels[:400], y[:400]).predict(pixels[400:, ::-1, ::-1])
    assert np.array_equal(first, again)
    assert first.dtype == np.float32
    assert first.shape == (200,)
    assert ((first >= 0) & (first <= 1)).all()
    assert CONTROLS[name].name == name


def test_what_each_control_reaches(patches) -> None:
    pixels, y = patches
    reached = {
        name: binary_metrics(y[400:], kind().fit(pixels[:400], y[:400]).predict(pixels[400:]))
        for name, kind in CONTROLS.items()
    }
    assert reached["majority"]["roc_auc"] == 0.5
    assert reached["majority"]["accuracy"] == pytest.approx(1 - y[400:].mean())
    assert reached["mean-colour"]["roc_auc"] > 0.9
    assert reached["colour-histogram"]["roc_auc"] > 0.9


def test_majority_is_the_training_prevalence(patches) -> None:
    pixels, y = patches
    assert CONTROLS["majority"]().fit(pixels, y).predict(pixels[:2]) == pytest.approx([y.mean()] * 2)


def test_reads_a_memory_map(patches, tmp_path: Path) -> None:
    pixels, y = patches
    np.save(tmp_path / "patches.npy", pixels)
    mapped = np.load(tmp_path / "patches.npy", mmap_mode="r")
    model = CONTROLS["mean-colour"]().fit(mapped, y)
    assert model.predict(mapped).shape == (600,)
    assert model.predict(mapped[:0]).shape == (0,)


@pytest.mark.parametrize("name", ["mean-colour", "colour-histogram"])
def test_one_class_is_refused(name, patches) -> None:
    with pytest.raises(DataError, match="both classes"):
        CONTROLS[name]().fit(patches[0][:5], np.zeros(5, np.int8))


def test_no_patches_are_refused() -> None:
    with pytest.raises(DataError, match="no training patch"):
        CONTROLS["majority"]().fit(np.zeros((0, 50, 50, 3), np.uint8), np.zeros(0, np.int8))
