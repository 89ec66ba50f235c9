"""Calibrated probabilities: a temperature, and perhaps a bias, for the logits of a network.

Temperature scaling (Guo et al. 2017, arXiv 1706.04599) divides every logit by one number fitted on
validation patients. It keeps the order of patches, so ROC AUC stays; what changes is how far
probabilities are from one half. Fit it on validation patients only, and before the threshold is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize
from sklearn.model_selection import GroupKFold

from ductal.errors import RunError
from ductal.evaluation.arrays import Floats, Ints, checked, expit, logit, patient_numbers, patient_weights

TEMPERATURES = (0.1, 10.0)  # networks need 1 to 3; beyond these, something else is wrong
BIASES = (-10.0, 10.0)
BIAS_PATIENTS = 20


@dataclass(frozen=True)
class Scaling:
    """Calibrated logit = logit / temperature + bias.

    Attributes:
        temperature: above 1 the network was too sure of itself; 1.0 leaves logits as they are.
        bias: 0.0 unless it was fitted by `fit_platt`.
        fitted: whether the data could determine it; if not, it is the identity.
        note: why it could not be fitted, or "".
        patches: how many it was fitted on.
        patients: of how many patients they are; 0 when ids were unknown.
    """

    temperature: float = 1.0
    bias: float = 0.0
    fitted: bool = False
    note: str = ""
    patches: int = 0
    patients: int = 0

    def apply(self, p: npt.ArrayLike) -> Floats:
        """Calibrated probabilities, float64 (n,), of probabilities (n,); the identity returns them unchanged."""
        if self.temperature == 1.0 and self.bias == 0.0:
            return np.asarray(p, dtype=np.float64)
        return expit(logit(p) / self.temperature + self.bias)

    def undo(self, p: npt.ArrayLike) -> Floats:
        """The network's probabilities, float64 (n,), from calibrated ones (n,), where only these were kept.

        Calibrated probabilities beyond 1e-7 or 1 - 1e-7 count as these.
        """
        if self.temperature == 1.0 and self.bias == 0.0:
            return np.asarray(p, dtype=np.float64)
        return expit((logit(p) - self.bias) * self.temperature)


Fit = Callable[[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike], Scaling]


@dataclass(frozen=True)
class CrossFit:
    """Probabilities calibrated by patients other than their own.

    Attributes:
        probs: float64 (n,).
        fold: int (n,); `scalings[fold[i]]` was applied to patch i, and its patient is not in it.
        scalings: one a fold.
    """

    probs: Floats
    fold: Ints
    scalings: tuple[Scaling, ...]


def fit_temperature(y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Scaling:
    """The temperature with the smallest negative log likelihood.

    The likelihood is convex in 1 / T, so its slope has at most one root, which Brent's method finds to
    machine precision: nothing to tune, no start value.

    Where ids are given, each patient counts the same. Patients hold from a dozen to more than a thousand
    patches and differ in calibration; if patches counted the same, two or three large slides would set
    the temperature of all. With equal patients it varies less from one set of validation patients to another.

    Args:
        y: labels, shape (n,), IDC = 1.
        p: probabilities of IDC, shape (n,), as the network gives them.
        patients: ids, shape (n,), "" where unknown; None lets each patch count the same.

    Returns:
        The scaling. With one class only, with classes that 0.5 separates without error (no probability
        would then be sure enough), or with an optimum outside 0.1 to 10, it is the identity, and
        `note` says so: a training must not fail here, but its record must tell.

    Raises:
        RunError: as `binary_metrics`, or not one id for each patch.
    """
    data = _Data.of(y, p, patients)
    if data.problem:
        return data.unfitted(data.problem)
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if data.slope(low) >= 0 or data.slope(high) <= 0:
        return data.unfitted(_OUTSIDE)
    return data.fitted(1.0 / float(optimize.brentq(data.slope, low, high, xtol=1e-12)), 0.0)


def fit_platt(y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> Scaling:
    """Temperature and bias with the smallest negative log likelihood (Platt 1999, on logits, plain targets).

    For networks trained with `class_weights`: weighting shifts all logits by about the logarithm of the
    ratio of the weights, which no temperature undoes. For others only where `bias_helps`, because the bias takes
    over the share of IDC among the validation patients, and that share differs widely between patients.

    Arguments, weighting and fallback are those of `fit_temperature`.

    Raises:
        RunError: as `fit_temperature`.
    """
    data = _Data.of(y, p, patients)
    if data.problem:
        return data.unfitted(data.problem)
    if data.separable:
        return data.unfitted(_OUTSIDE)
    bounds = [(1 / TEMPERATURES[1], 1 / TEMPERATURES[0]), BIASES]
    found = optimize.minimize(data.loss, (1.0, 0.0), jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12)
    if any(not low < value < high for value, (low, high) in zip(found.x, bounds, strict=True)):
        return data.unfitted(_OUTSIDE)
    return data.fitted(1.0 / float(found.x[0]), float(found.x[1]))


def cross_fitted(
    y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike, fit: Fit = fit_temperature, *, folds: int = 5
) -> CrossFit:
    """Calibrate each patient with a scaling fitted on the others.

    The final scaling is fitted on all validation patients, and figures after calibration on the same
    patients would flatter it. These do not. Folds are of patients, of about the same number of patches
    each (scikit-learn's GroupKFold), the same in every call.

    Args:
        y: labels, shape (n,).
        p: probabilities of IDC, shape (n,).
        patients: ids, shape (n,); for a cohort without them its content hashes (`Cohort.groups`).
        fit: `fit_temperature` or `fit_platt`.
        folds: parts; at most one for each patient.

    Raises:
        RunError: fewer than two patients or folds, an unknown patient, or as `fit_temperature`.
    """
    truth, probs = checked(y, p)
    numbers = patient_numbers(patients, truth.size)
    count = np.unique(numbers).size
    ids = np.asarray(patients).astype(str)
    if count < 2 or folds < 2 or (ids == "").any():
        raise RunError(
            "Calibration on other patients needs at least two folds, two patients, and every patient's id. "
            f"Received: {folds} folds, {count} patients, {int((ids == '').sum())} patches without an id."
        )
    result, fold = np.empty(truth.size), np.empty(truth.size, dtype=np.intp)
    scalings = []
    divided = GroupKFold(min(folds, count)).split(probs, groups=numbers)
    for number, (others, own) in enumerate(divided):
        scaling = fit(truth[others], probs[others], ids[others])
        result[own], fold[own] = scaling.apply(probs[own]), number
        scalings.append(scaling)
    return CrossFit(result, fold, tuple(scalings))


def bias_helps(y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike) -> bool:
    """Whether a bias besides the temperature makes probabilities better on patients it was not fitted on.

    Both are cross-fitted over patients. The bias helps where the mean log loss of the patients falls by more than
    its standard error over patients. A bias takes over the share of IDC of the patients it is fitted on, so with few
    patients, whose share is a matter of luck, it has to be left out.

    Args:
        y: labels, shape (n,).
        p: probabilities of IDC, shape (n,).
        patients: ids, shape (n,).

    Returns:
        False with fewer than `BIAS_PATIENTS` patients, or with patches whose patient is unknown.

    Raises:
        RunError: as `fit_temperature`.
    """
    ids = np.asarray(patients).astype(str)
    names, number = np.unique(ids, return_inverse=True)
    if names.size < BIAS_PATIENTS or "" in names:
        return False
    truth, _ = checked(y, p)
    losses = []
    for fit in (fit_temperature, fit_platt):
        probs = cross_fitted(y, p, ids, fit).probs.clip(1e-7, 1 - 1e-7)
        loss = -np.log(np.where(truth == 1, probs, 1 - probs))
        losses.append(np.bincount(number, weights=loss) / np.bincount(number))
    gain = losses[0] - losses[1]
    return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(names.size))


_OUTSIDE = (
    f"No temperature from {TEMPERATURES[0]} to {TEMPERATURES[1]} is the best one: the scores rank no better than "
    "chance, or separate the classes (nearly) without error. Probabilities are left as they are."
)


@dataclass(frozen=True)
class _Data:
    """What a scaling is fitted on."""

    truth: Floats
    logits: Floats
    weights: Floats
    patients: int
    problem: str

    @classmethod
    def of(cls, y: npt.ArrayLike, p: npt.ArrayLike, patients: npt.ArrayLike | None) -> _Data:
        truth, probs = checked(y, p)
        weights = patient_weights(patients, truth.size)
        names = set() if patients is None else set(np.asarray(patients).astype(str).tolist()) - {""}
        problem = ""
        if not 0 < truth.sum() < truth.size:
            problem = (
                f"All {truth.size} patches are of one class, so no temperature can be fitted. "
                "Probabilities are left as they are; calibrate on patients of both classes."
            )
        return cls(truth.astype(np.float64), logit(probs), weights / max(1, truth.size), len(names), problem)

    @property
    def separable(self) -> bool:
        """Whether some threshold makes no error, so that the best slope is infinite."""
        positive = self.truth == 1.0
        return bool(self.logits[positive].min() > self.logits[~positive].max())

    def slope(self, a: float) -> float:
        """Derivative of the loss by a = 1 / T; never falls as a rises."""
        return float(np.sum(self.weights * self.logits * (expit(a * self.logits) - self.truth)))

    def loss(self, values: npt.NDArray[np.float64]) -> tuple[float, Floats]:
        """Mean negative log likelihood at (1 / T, bias), and its gradient."""
        z = values[0] * self.logits + values[1]
        off = self.weights * (expit(z) - self.truth)
        loss = float(np.sum(self.weights * np.logaddexp(0.0, (1.0 - 2.0 * self.truth) * z)))
        return loss, np.array([np.sum(off * self.logits), np.sum(off)])

    def fitted(self, temperature: float, bias: float) -> Scaling:
        return Scaling(temperature, bias, True, "", self.truth.size, self.patients)

    def unfitted(self, note: str) -> Scaling:
        return Scaling(note=note, patches=self.truth.size, patients=self.patients)
