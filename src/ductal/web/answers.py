"""From probabilities to an honest answer: the call, or none where the model is unsure, and a plain sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ductal.errors import RunError
from ductal.evaluation.arrays import expit, logit
from ductal.web.schemas import Band, Call, Note, Prediction, Views

SIDE = 50


@dataclass(frozen=True)
class Judge:
    """How one run's probabilities are called.

    Attributes:
        threshold: cancer is called from here on.
        band: between these no call is made; None where the run has no such limits.
        max_error: share of wrong calls among validation patches that the band was chosen to leave; None without one.
        d4: whether the run averages over the 8 rotations and flips.
    """

    threshold: float
    band: Band | None
    max_error: float | None
    d4: bool

    @classmethod
    def of_run(cls, run_folder: Path, threshold: float, d4: bool) -> Judge:
        """With the limits of abstention of the run's calibration.json. Raises RunError where it cannot be read."""
        try:
            settings = json.loads((run_folder / "calibration.json").read_text(encoding="utf-8"))
            found = settings.get("abstention") or {}
            low, high = found.get("low"), found.get("high")
            if low is None or high is None:  # no limits reach the error rate
                return cls(threshold, None, None, d4)
            return cls(threshold, Band(low=low, high=high), float(found["max_error"]), d4)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{run_folder / 'calibration.json'} cannot be read ({error!r}). Train the recipe again."
            ) from error

    def answer(self, name: str, found: np.ndarray, notes: list[Note], *, usable: bool = True) -> Prediction:
        """The answer for one patch.

        Args:
            name: of its file.
            found: float32 (8,), probabilities of the views; or (1,), where they were not asked for.
            notes: what to know before believing it.
            usable: whether there is something on the patch to be called at all.
        """
        mean = float(expit(logit(found).mean())) if len(found) > 1 else float(found[0])
        probability = mean if self.d4 else float(found[0])
        above = probability >= self.threshold
        unsure = not usable or (self.band is not None and self.band.low < probability < self.band.high)
        call: Call = "unsure" if unsure else "cancer" if above else "not_cancer"
        views = None
        if len(found) > 1:
            agree = int(((found.astype(np.float64) >= self.threshold) == above).sum())
            views = Views(mean=mean, lowest=float(found.min()), highest=float(found.max()),
                          views=[float(one) for one in found], agree=agree)  # fmt: skip
        return Prediction(
            name=name, probability=probability, call=call, above_threshold=above, threshold=self.threshold,
            words=self._words(probability, call, usable), abstain=self.band, d4=views, warnings=notes,
            width=SIDE, height=SIDE,
        )  # fmt: skip

    def _words(self, probability: float, call: Call, usable: bool) -> str:
        what = f"a probability of {percent(probability)} of invasive ductal carcinoma"
        if not usable:
            return "There is next to nothing on this image, so no call is made, and the probability means nothing."
        if call == "unsure" and self.band is not None and self.max_error is not None:
            low, high = percent(self.band.low), percent(self.band.high)
            return (
                f"The model is unsure: {what}. Between {low} and {high} it makes no call; elsewhere at most "
                f"{100 * self.max_error:.0f} % of its calls on validation patients were wrong."
            )
        limit = percent(self.threshold)
        if call == "cancer":
            return f"Called cancer: {what}, at or above the threshold of {limit}."
        return f"Not called cancer: {what}, below the threshold of {limit}."


def percent(value: float) -> str:
    """A probability as people say it: never 0 % or 100 %, which no model can know."""
    if value < 0.001:
        return "less than 0.1 %"
    if value > 0.999:
        return "more than 99.9 %"
    return f"{100 * value:.1f} %" if value < 0.1 or value > 0.9 else f"{100 * value:.0f} %"
