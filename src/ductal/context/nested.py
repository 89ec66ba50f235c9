"""Leave-one-slide-out: a slide's patches are called by what was fitted, calibrated and chosen on other slides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ductal.context.heads import Fitted, Head, Slide
from ductal.errors import RunError
from ductal.evaluation.arrays import Bools, Floats, expit
from ductal.evaluation.calibration import negative_log_likelihood
from ductal.evaluation.metrics import best_threshold
from ductal.evaluation.temperature import Scaling, fit_temperature

MIN_SLIDES = 3
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A head with everything that was chosen for it, on the slides of `patients`.

    Attributes:
        head: fitted on all of them.
        setting: the one of `Head.settings` with the smallest log loss.
        scaling: of its logits, fitted on logits of slides that the head in question was not fitted on.
        threshold: with the best balanced accuracy on those.
        patients: whose slides they are.
    """

    head: Fitted
    setting: Any
    scaling: Scaling
    threshold: float
    patients: tuple[str, ...]

    def logits(self, slide: Slide) -> Floats:
        """Calibrated logits, float64 (n,)."""
        return self.head.logits(slide) / self.scaling.temperature + self.scaling.bias


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a head said of slides that it never saw.

    Attributes:
        head: which.
        logits: calibrated, float64 (n,), the slides' patches one below the other.
        called: bool (n,), at thresholds chosen on other slides.
        models: one for each slide, in their order.
    """

    head: Head
    logits: Floats
    called: Bools
    models: tuple[Calibrated, ...]

    @property
    def probs(self) -> Floats:
        """Probabilities, float64 (n,)."""
        return expit(self.logits)


def fit_calibrated(head: Head, slides: Sequence[Slide]) -> Calibrated:
    """Choose the setting, calibrate, choose the threshold, and fit, all on these slides.

    The slides are divided into parts; each part is scored by heads fitted on the others. The log loss of these scores
    picks the setting, and the temperature and the threshold are fitted on them. A head's scores on
    its own slides would be too sure of themselves. The head itself is then fitted on all.

    Raises:
        RunError: fewer than two slides, a patient twice, or the slides lack a class.
    """
    patients = tuple(slide.patient for slide in slides)
    if len(slides) < 2 or len(set(patients)) < len(patients):
        raise RunError(
            "Context is calibrated on slides that it was not fitted on, so it takes two slides or more, of "
            f"different patients. Received: {', '.join(patients) or 'none'}."
        )
    labels = np.concatenate([slide.labels for slide in slides])
    ids = np.repeat(patients, [len(slide.labels) for slide in slides])
    tried = [(setting, expit(_crossed(head, slides, setting))) for setting in head.settings]
    losses = [negative_log_likelihood(labels, probs, ids) for _, probs in tried]
    setting, probs = tried[int(np.argmin(losses))]
    scaling = fit_temperature(labels, probs, ids)
    threshold = best_threshold(labels, scaling.apply(probs))
    return Calibrated(head.fit(slides, setting), setting, scaling, threshold, patients)


def leave_one_slide_out(head: Head, slides: Sequence[Slide], progress: Progress | None = None) -> HeldOut:
    """Every slide is scored and called by what `fit_calibrated` made of the others.

    Args:
        head: what to fit.
        slides: of different patients, which the patch model was not trained on.
        progress: called with (slides done, slides in all).

    Raises:
        RunError: fewer than three slides, or as `fit_calibrated`.
    """
    if len(slides) < MIN_SLIDES:
        raise RunError(
            f"Leave-one-slide-out takes {MIN_SLIDES} complete slides that the patch model was not trained on. "
            f"Received: {len(slides)}. Hold out more patients, or name a cohort that has them (--cohort)."
        )
    models, logits, called = [], [], []
    for number, slide in enumerate(slides):
        model = fit_calibrated(head, [other for other in slides if other is not slide])
        models.append(model)
        logits.append(model.logits(slide))
        called.append(expit(logits[-1]) >= model.threshold)
        if progress:
            progress(number + 1, len(slides))
    return HeldOut(head, np.concatenate(logits), np.concatenate(called), tuple(models))


def _crossed(head: Head, slides: Sequence[Slide], setting: Any) -> Floats:
    """Logits of each slide by a head fitted on slides of the other parts."""
    parts = min(head.folds or len(slides), len(slides))
    found: list[Floats] = [np.empty(0)] * len(slides)
    for part in range(parts):
        fitted = head.fit([slide for at, slide in enumerate(slides) if at % parts != part], setting)
        for at in range(part, len(slides), parts):
            found[at] = fitted.logits(slides[at])
    return np.concatenate(found)
