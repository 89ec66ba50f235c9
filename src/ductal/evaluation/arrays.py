"""Labels, probabilities and patient ids as arrays that can be computed with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from ductal.errors import RunError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

CLIP = 1e-7


def checked(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[Bools, Floats]:
    """Labels as bool and probabilities as float64, both of shape (n,).

    Raises:
        RunError: shapes differ, a label is not 0 or 1, or a probability is not in [0, 1].
    """
    labels, probs = np.asarray(y), np.asarray(p, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probs.shape:
        raise RunError(
            "Labels and probabilities must be two flat arrays of one length. "
            f"Received: shapes {labels.shape} and {probs.shape}."
        )
    if not np.isin(labels, (0, 1)).all():
        raise RunError(f"Labels must be 0 or 1 (IDC). Received: {np.unique(labels)[:5].tolist()}.")
    wrong = ~((probs >= 0) & (probs <= 1))
    if wrong.any():
        raise RunError(
            f"Probabilities must be in [0, 1]. Received: {int(wrong.sum())} others, first {probs[wrong][0]}; "
            "a nan means that the model diverged: lower the learning rate."
        )
    return labels.astype(bool), probs


def logit(p: npt.ArrayLike) -> Floats:
    """log(p / (1 - p)), float64, finite: p is clipped to [1e-7, 1 - 1e-7] first."""
    found: Floats = special.logit(np.clip(np.asarray(p, dtype=np.float64), CLIP, 1.0 - CLIP))
    return found


def expit(z: npt.ArrayLike) -> Floats:
    """1 / (1 + exp(-z)), float64."""
    found: Floats = special.expit(np.asarray(z, dtype=np.float64))
    return found


def patient_numbers(patients: npt.ArrayLike | None, n: int) -> Ints:
    """Number patients from 0, shape (n,).

    A patch whose patient is unknown ("", or `patients` None) is numbered as a patient of its own.

    Raises:
        RunError: there are not n ids.
    """
    if patients is None:
        return np.arange(n)
    ids = np.asarray(patients).astype(str)
    if ids.shape != (n,):
        raise RunError(
            f"There must be one patient id for each patch. Received: shape {ids.shape} for {n} patches."
        )
    names, numbers = np.unique(ids, return_inverse=True)
    unknown = ids == ""
    return np.where(unknown, names.size + np.cumsum(unknown), numbers)


def patient_weights(patients: npt.ArrayLike | None, n: int) -> Floats:
    """Weights of mean 1, shape (n,), that let each patient count the same; all 1 when ids are unknown.

    Raises:
        RunError: there are not n ids.
    """
    _, numbers, sizes = np.unique(patient_numbers(patients, n), return_inverse=True, return_counts=True)
    return n / (sizes.size * sizes[numbers]) if n else np.empty(0)
