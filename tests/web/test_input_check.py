"""The rules that tell images unlike H&E: what must be flagged is, and real patches hardly ever are."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from web_server import tissue

from ductal.data.stain import STAINS
from ductal.web.input_check import density_shares, flags, notes

PATCH = tissue(0.8)


def painted(haematoxylin: float, eosin: float) -> np.ndarray:
    """Texture of the two stains, uint8 (50, 50, 3)."""
    noise = np.random.default_rng(0).uniform(0.5, 1.5, (50, 50, 1))
    density = noise * (haematoxylin * STAINS[0] + eosin * STAINS[1])
    return np.clip(243 * np.exp(-density), 0, 255).astype(np.uint8)


def test_tissue_has_no_flag() -> None:
    assert flags(PATCH[None]) == [[]]
    assert notes([]) == ([], True)


def test_each_patch_of_many_is_judged_by_itself() -> None:
    white, grey = np.full_like(PATCH, 255), np.repeat(PATCH.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    assert flags(np.stack([white, PATCH, grey, white])) == [["blank"], [], ["not_he"], ["blank"]]


@pytest.mark.parametrize(
    ("name", "patch", "code", "usable"),
    [
        ("white", np.full((50, 50, 3), 255, np.uint8), "blank", False),
        ("black", np.zeros((50, 50, 3), np.uint8), "blank", False),
        ("glass", np.random.default_rng(0).integers(235, 250, (50, 50, 3)).astype(np.uint8), "glass", False),
        ("grey", np.repeat(PATCH.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8), "not_he", True),
        ("inverted", 255 - PATCH, "not_he", True),
        ("green", PATCH[..., [1, 0, 2]], "not_he", True),
        ("ink", np.clip(PATCH * [0.2, 0.5, 1.0], 0, 255).astype(np.uint8), "ink", True),
        ("blurred", np.asarray(Image.fromarray(PATCH).filter(ImageFilter.GaussianBlur(3))), "blurred", True),
    ],
)
def test_what_is_flagged(name: str, patch: np.ndarray, code: str, usable: bool) -> None:
    (codes,) = flags(patch[None])
    said, found = notes(codes)
    assert code in codes, name
    assert [note.code for note in said] == codes
    assert found is usable
    assert all(note.text.endswith(".") for note in said)


def test_shares_do_not_depend_on_the_strength_of_the_stain() -> None:
    weak, strong = density_shares(np.stack([painted(0.6 * by, 0.6 * by) for by in (1, 2)]))
    np.testing.assert_allclose(weak, strong, atol=0.01)
    mixed = (STAINS[0] + STAINS[1]) / (STAINS[0] + STAINS[1]).sum()
    np.testing.assert_allclose(strong, mixed, atol=0.01)
    np.testing.assert_allclose(density_shares(np.full((1, 50, 50, 3), 255, np.uint8)), 1 / 3)


def test_hardly_any_real_patch_is_flagged(real_zip: Path) -> None:
    with zipfile.ZipFile(real_zip) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")][::40]
        images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    found = flags(np.stack([np.asarray(image) for image in images if image.size == (50, 50)]))
    assert len(found) > 300
    assert sum(bool(one) for one in found) < 0.04 * len(found)
