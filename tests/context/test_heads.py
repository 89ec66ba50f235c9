"""The logistic regression of heads: the same minimum whatever the solver, also from far away."""

from __future__ import annotations

import numpy as np
import pytest
from fields import field_slides
from sklearn.linear_model import LogisticRegression

from ductal.context.heads import logistic_regression
from ductal.evaluation.arrays import patient_weights


@pytest.mark.parametrize(("strength", "scale"), [(1e-3, 1.0), (1.0, 1.0), (1e6, 8.0)])
def test_newton_finds_the_minimum_that_a_general_optimiser_finds(strength: float, scale: float) -> None:
    slides = field_slides(3)[1:]
    x = scale * np.concatenate([np.column_stack([slide.logits, slide.embeddings]) for slide in slides])
    y = np.concatenate([slide.labels for slide in slides])
    ids = np.repeat([slide.patient for slide in slides], [len(slide.labels) for slide in slides])
    expected = LogisticRegression(C=strength, tol=1e-10, max_iter=5000).fit(
        x, y, sample_weight=patient_weights(ids, len(y))
    )
    intercept, coefficients = logistic_regression(x.astype(np.float64), slides, strength)
    np.testing.assert_allclose(coefficients, expected.coef_[0], atol=2e-4)
    assert intercept == pytest.approx(expected.intercept_[0], abs=2e-4)
