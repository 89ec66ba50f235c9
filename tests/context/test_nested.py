"""Leave-one-slide-out: neighbours that know something help, and a slide's own labels never reach its calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fields import field_slides

from ductal.context.embedding_head import EmbeddingHead
from ductal.context.heads import Head, PatchOnly, Slide, Smoothing
from ductal.context.nested import HeldOut, fit_calibrated, leave_one_slide_out
from ductal.context.scores import score_models, slide_scores
from ductal.errors import RunError
from ductal.evaluation.metrics import best_threshold, binary_metrics

HEADS: dict[str, Callable[[], Head]] = {
    "patch-only": PatchOnly,
    "smoothing": lambda: Smoothing(settings=(3, 5)),
    "embeddings": lambda: EmbeddingHead(settings=(1e-3, 1e-2), components=4),
}


def of_slide(held: HeldOut, slides: list[Slide], number: int) -> np.ndarray:
    ends = np.cumsum([len(slide.labels) for slide in slides])
    return held.logits[ends[number] - len(slides[number].labels) : ends[number]]


@pytest.mark.parametrize("name", HEADS)
def test_a_slides_labels_never_reach_its_own_scores_or_threshold(name: str) -> None:
    """Turning a slide's labels over changes what is said of the others, and nothing that is said of itself."""
    slides = field_slides(4, side=10)
    changed = [slides[0], slides[1], replace(slides[2], labels=1 - slides[2].labels), slides[3]]
    before, after = (leave_one_slide_out(HEADS[name](), each) for each in (slides, changed))
    np.testing.assert_array_equal(of_slide(before, slides, 2), of_slide(after, slides, 2))
    assert before.models[2].threshold == after.models[2].threshold
    assert "p2" not in before.models[2].patients
    assert not np.array_equal(of_slide(before, slides, 0), of_slide(after, slides, 0))


@pytest.mark.parametrize("name", HEADS)
def test_no_slide_is_a_neighbour_of_another(name: str) -> None:
    """What a fitted head says of one slide does not depend on any other: neither its place nor its pixels."""
    slides = field_slides(3, side=8)
    model = fit_calibrated(HEADS[name](), slides[:2])
    alone = model.logits(slides[2])
    model.logits(replace(slides[0], logits=slides[0].logits + 100))
    np.testing.assert_array_equal(model.logits(replace(slides[2], labels=1 - slides[2].labels)), alone)


def test_calibration_and_threshold_are_fitted_on_scores_of_other_slides() -> None:
    """A head that knows its own slides by heart scores others like a coin: the temperature must say so."""

    class ByHeart:
        name, track, says, settings, folds = "by heart", "slide context", "", (None,), None

        def fit(self, slides: list[Slide], setting: None) -> ByHeart:  # noqa: ARG002
            fitted = ByHeart()
            fitted.known = {slide.patient for slide in slides}  # type: ignore[attr-defined]
            return fitted

        def logits(self, slide: Slide) -> np.ndarray:
            if slide.patient in self.known:  # type: ignore[attr-defined]
                return 20.0 * (slide.labels - 0.5)
            return 4 * slide.logits

    slides = field_slides(5)
    model = fit_calibrated(ByHeart(), slides)
    assert 3 < model.scaling.temperature < 5.3
    truth = np.concatenate([slide.labels for slide in slides])
    logits = np.concatenate([slide.logits for slide in slides])
    probs = model.scaling.apply(1 / (1 + np.exp(-4 * logits)))
    assert model.threshold == best_threshold(truth, probs)


def test_neighbours_gain_where_tumours_are_larger_than_a_patch() -> None:
    slides = field_slides(6)
    held = [leave_one_slide_out(head, slides) for head in (PatchOnly(), Smoothing(), EmbeddingHead(components=4))]
    table = score_models(slides, held).set_index("name")
    assert table.loc["smoothing", "roc_auc"] > table.loc["patch-only", "roc_auc"] + 0.03
    assert table.loc["embeddings", "roc_auc"] > table.loc["patch-only", "roc_auc"] + 0.03
    assert table.loc["smoothing", "balanced_accuracy_difference_low"] > 0
    assert table.loc["smoothing", "ece"] < 0.05


def test_neighbours_that_know_nothing_are_given_no_weight() -> None:
    slides = field_slides(6, smooth=0)
    own, around = (getattr(Smoothing().fit(slides, 5), name) for name in ("own", "neighbourhood"))
    assert abs(own - 1) < 0.15
    assert abs(around) < 0.25


def test_the_window_is_chosen_by_slides_that_were_left_out() -> None:
    assert fit_calibrated(Smoothing(settings=(1, 5)), field_slides(4)).setting == 5


def test_scores_are_those_of_the_calls() -> None:
    slides = field_slides(3)
    held = leave_one_slide_out(PatchOnly(), slides)
    table = score_models(slides, [held]).iloc[0]
    truth = np.concatenate([slide.labels for slide in slides])
    expected = binary_metrics(truth, held.called.astype(float))
    for name in ("balanced_accuracy", "f1", "recall"):
        assert table[name] == pytest.approx(expected[name])
    assert table["roc_auc"] == pytest.approx(binary_metrics(truth, held.probs)["roc_auc"])
    assert np.isnan(table["roc_auc_low"])  # three slides are too few
    each = slide_scores(slides, [held])
    assert each["patient"].tolist() == ["p0", "p1", "p2"]
    first = binary_metrics(slides[0].labels, held.probs[: len(slides[0].labels)], held.models[0].threshold)
    assert each["f1"][0] == pytest.approx(first["f1"])
    assert table["mean_slide_roc_auc"] == pytest.approx(each["roc_auc"].mean())


def test_too_few_slides_or_classes_are_refused() -> None:
    slides = field_slides(3)
    with pytest.raises(RunError, match="takes 3"):
        leave_one_slide_out(Smoothing(), slides[:2])
    with pytest.raises(RunError, match="different patients"):
        fit_calibrated(Smoothing(), [slides[0], slides[0]])
    healthy = [replace(slide, labels=np.zeros_like(slide.labels)) for slide in slides]
    for head in (Smoothing(), EmbeddingHead()):
        with pytest.raises(RunError, match="one class"):
            head.fit(healthy, head.settings[0])
    with pytest.raises(RunError, match="without them"):
        EmbeddingHead().fit([replace(slide, embeddings=None) for slide in slides], 1e-3)
