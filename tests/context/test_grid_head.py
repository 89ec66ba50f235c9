"""The convolutional head: what holds for the other heads holds for it, and places without a patch stay empty."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fields import field_slides

from ductal.context.grid_head import GridHead
from ductal.errors import RunError
from ductal.evaluation.arrays import expit
from ductal.evaluation.metrics import binary_metrics
from ductal.slides.grid import TileGrid


def test_the_same_slides_give_the_same_head() -> None:
    slides = field_slides(2, side=8)
    first, second = (GridHead(steps=2, components=4).fit(slides, None).logits(slides[0]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_an_untrained_head_is_the_patch_model() -> None:
    slides = field_slides(2, side=8)
    fitted = GridHead(steps=0, components=4).fit(slides, None)
    np.testing.assert_allclose(fitted.logits(slides[1]), slides[1].logits, atol=1e-5)


def test_a_wider_empty_margin_and_a_turn_change_nothing() -> None:
    slides = field_slides(2, side=8)
    fitted = GridHead(steps=5, components=4).fit(slides, None)
    slide = slides[1]
    grid = slide.grid
    moved = TileGrid(grid.columns + 3, grid.rows + 2, (12, 13))
    turned = TileGrid(grid.rows, grid.shape[1] - 1 - grid.columns, grid.shape[::-1])
    for other in (moved, turned):
        np.testing.assert_allclose(fitted.logits(replace(slide, grid=other)), fitted.logits(slide), atol=1e-4)


def test_it_gains_where_tumours_are_larger_than_a_patch() -> None:
    """On a slide it was not fitted on."""
    *slides, other = field_slides(4, side=14)
    refined = GridHead(steps=80, components=4).fit(slides, None).logits(other)
    alone, found = (binary_metrics(other.labels, expit(logits))["roc_auc"] for logits in (other.logits, refined))
    assert found > alone + 0.03


def test_one_class_is_refused() -> None:
    slides = [replace(slide, labels=np.zeros_like(slide.labels)) for slide in field_slides(2, side=8)]
    with pytest.raises(RunError, match="one class"):
        GridHead().fit(slides, None)
