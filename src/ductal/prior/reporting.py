"""What the faults do to a figure once the model is trained, and what happened, in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ductal.evaluation.metrics import binary_metrics
from ductal.prior.faults import Configuration, Reporting
from ductal.training.recipe import Augment

METRICS = ("accuracy", "balanced_accuracy", "roc_auc")
THRESHOLD = 0.5  # notebooks call classes there
# The generator of Keras's tutorial that most notebooks copy (Chollet 2016, "Building powerful image classification
# models using very little data"), without its shear.
NOTEBOOK_AUGMENT = Augment(d4=True, rotation_degrees=40.0, zoom=0.2, shift=0.2)


@dataclass(frozen=True)
class Figures:
    """The metrics of one set of patches at the threshold 0.5, how many they are, and their prevalence.

    `called_positive` is the share that was called cancer.
    """

    accuracy: float
    balanced_accuracy: float
    roc_auc: float
    patches: int
    prevalence: float
    called_positive: float


@dataclass(frozen=True)
class Outcome:
    """One configuration, measured.

    Attributes:
        configuration: network and faults.
        reported: what its author would publish.
        true: the same model on the hold-out patients.
        honest: the true figures of the same network without the faults.
        patients_seen, copies_seen: shares of the reported patches whose patient, or whose copy, is in training.
        seconds: of computing that no earlier configuration had done.
    """

    configuration: Configuration
    reported: Figures
    true: Figures
    honest: Figures
    patients_seen: float
    copies_seen: float
    seconds: float

    def difference(self, metric: str) -> float:
        """Reported less true."""
        return float(getattr(self.reported, metric) - getattr(self.true, metric))


def figures(truth: npt.ArrayLike, probs: npt.ArrayLike) -> Figures:
    """Metrics of labels (n,) and probabilities (n,), as `ductal.evaluation.metrics.binary_metrics` defines them."""
    found = binary_metrics(truth, probs, THRESHOLD)
    n = int(found["n"])
    called = (found["tp"] + found["fp"]) / n if n else float("nan")
    return Figures(
        accuracy=found["accuracy"],
        balanced_accuracy=found["balanced_accuracy"],
        roc_auc=found["roc_auc"],
        patches=n,
        prevalence=found["prevalence"],
        called_positive=called,
    )


def as_reported(probs: np.ndarray, reporting: Reporting, rng: np.random.Generator) -> np.ndarray:
    """The scores that the author sets against the labels, row by row: float (n,).

    With labels of prevalence p and a share q called positive, a shuffled order is right on p q + (1 - p)(1 - q)
    of the patches on average: p² + (1 - p)² for q = p. Inverted classes turn accuracy and AUC into 1 less them.
    """
    scores = 1 - probs if reporting.inverted else probs
    return rng.permutation(scores) if reporting.shuffled else scores


def in_words(outcome: Outcome) -> str:
    """What happened in this configuration, in a few sentences."""
    configuration, reported, true = outcome.configuration, outcome.reported, outcome.true
    if not configuration.faults:
        return (
            f"No fault. Reported on the {true.patches:,} patches of the hold-out patients, so that the reported "
            f"figure is the true one. {_collapse(outcome)}".rstrip()
        )
    said = [fault.says for fault in configuration.faults]
    if outcome.patients_seen:
        said.append(
            f"{outcome.patients_seen:.0%} of the reported patches are of patients it was trained on, "
            f"{outcome.copies_seen:.0%} are copies of training patches."
        )
    said.append(
        f"It reports accuracy {reported.accuracy:.3f} and balanced accuracy {reported.balanced_accuracy:.3f}; "
        f"true are {true.accuracy:.3f} and {true.balanced_accuracy:.3f}."
    )
    if configuration.training != configuration.honest:
        change = true.balanced_accuracy - outcome.honest.balanced_accuracy
        said.append(
            f"The same network without the fault: true balanced accuracy {outcome.honest.balanced_accuracy:.3f} "
            f"({change:+.3f} with it)."
        )
    if abs(reported.prevalence - true.prevalence) >= 0.01:
        said.append(
            f"Of the reported patches {reported.prevalence:.1%} are IDC, of the hold-out {true.prevalence:.1%}."
        )
    return " ".join([*said, _collapse(outcome)]).rstrip()


def _collapse(outcome: Outcome) -> str:
    if outcome.true.called_positive in (0.0, 1.0):
        kind = "cancer" if outcome.true.called_positive else "not cancer"
        return f"It calls every patch of the hold-out {kind}."
    return ""
