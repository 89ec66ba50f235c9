"""The convolutional head: what holds for the other heads holds for it, and places without a patch stay empty."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fields import field_slides

from ductal.context.grid_head import GridHead
from ductal.context.heads import PatchOnly
from ductal.context.nested import HeldOut, fit_calibrated, leave_one_slide_out
from ductal.context.scores import score_models
from ductal.errors import RunError
from ductal.slides.grid import TileGrid


def test_a_slides_labels_never_reach_its_own_scores_or_threshold() -> None:
    slides = field_slides(3, side=8)
    changed = [*slides[:2], replace(slides[2], labels=1 - slides[2].labels)]
    head = GridHead(steps=2, components=4, folds=2)
    before, after = (leave_one_slide_out(head, each) for each in (slides, changed))
    own = len(slides[2].labels)
    np.testing.assert_array_equal(before.logits[-own:], after.logits[-own:])
    assert before.models[2].threshold == after.models[2].threshold
    assert not np.array_equal(before.logits[:-own], after.logits[:-own])


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
    slides = field_slides(4, side=14)
    model = fit_calibrated(GridHead(steps=80, components=4, folds=2), slides[:3])
    alone = fit_calibrated(PatchOnly(), slides[:3])
    held = [
        HeldOut(PatchOnly(), each.logits(slides[3]), each.logits(slides[3]) > 0, (each,)) for each in (alone, model)
    ]
    table = score_models(slides[3:], held)
    assert table["roc_auc"][1] > table["roc_auc"][0] + 0.03


def test_one_class_is_refused() -> None:
    slides = [replace(slide, labels=np.zeros_like(slide.labels)) for slide in field_slides(2, side=8)]
    with pytest.raises(RunError, match="one class"):
        GridHead().fit(slides, None)
