"""The complete slides of a cohort that a run was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ductal.context.heads import Slide
from ductal.errors import DataError, LeakError, RunError
from ductal.evaluation.arrays import logit
from ductal.evaluation.grid import DENSE, surroundings
from ductal.slides.grid import TileGrid
from ductal.slides.patients import Progress, RunProbabilities

TRAINED, SPARSE, CLOSED = "trained on", "a sample of a slide", "test patient"


def suitable_patients(
    source: RunProbabilities, asked: Sequence[str] = (), *, with_test: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Patients whose slides context may be fitted and scored on, and why others may not.

    A patch model is too sure of itself on slides it was trained on: a head fitted there would trust it too much, and
    scores there mean nothing. A sample of a slide has no neighbours to speak of (see `ductal.evaluation.grid`).
    Test patients stay out unless they are asked for, so that they remain a test of the context, too.

    Args:
        source: the run, the cohort and its split.
        asked: only these; all when empty.
        with_test: take test patients that the final evaluation has opened.

    Returns:
        (suitable, left out: reason by patient), both in the order of the cohort.

    Raises:
        LeakError: a patient that is asked for was trained on.
        DataError: one that is asked for is unknown, or not suitable for another reason.
    """
    for patient in asked:
        source.rows(patient)
    table = source.cohort.table
    around = surroundings(table)["neighbours"].groupby(table["patient"].to_numpy()).median()
    suitable, left_out = [], {}
    for patient, role in source.roles.items():
        if asked and patient not in asked:
            continue
        if role == "train":
            left_out[patient] = TRAINED
        elif around[patient] < DENSE:
            left_out[patient] = SPARSE
        elif role == "test" and not (with_test and patient in source.saved):
            left_out[patient] = CLOSED
        else:
            suitable.append(patient)
    if asked:
        _refuse(left_out)
    return suitable, left_out


def gather(
    source: RunProbabilities, patients: Sequence[str], *, embeddings: bool, progress: Progress | None = None
) -> list[Slide]:
    """The slides of `patients`, with the run's calibrated logits and, where wanted, embeddings.

    Raises:
        RunError: embeddings of a cross-fitted ensemble. DataError, HeldOutError: as `RunProbabilities.of`.
    """
    if embeddings and source.cross_fitted:
        raise RunError(
            "The networks of a cross-fitted ensemble each know some of these slides, so their embeddings are not "
            "those of unseen slides. Leave these heads out: --heads smoothing."
        )
    probs = source.of(patients, progress)
    table = source.cohort.table
    slides = []
    for patient in patients:
        rows = source.rows(patient)
        grid = TileGrid.from_pixels(table["x"].to_numpy()[rows], table["y"].to_numpy()[rows])
        labels = source.cohort.labels[rows]
        slides.append(Slide(patient, grid, labels, logit(probs[patient]), None, rows, source.roles[patient]))
    if not embeddings or not slides:
        return slides
    from ductal.inference.embeddings import embed_run  # TensorFlow

    rows = np.concatenate([slide.rows for slide in slides])
    found = embed_run(source.folder, source.cohort.pixels, rows, progress=progress)
    parts = np.split(found, np.cumsum([len(slide.rows) for slide in slides])[:-1])
    return [replace(slide, embeddings=part) for slide, part in zip(slides, parts, strict=True)]


def _refuse(left_out: dict[str, str]) -> None:
    trained = [patient for patient, reason in left_out.items() if reason == TRAINED]
    if trained:
        raise LeakError(
            f"The run was trained on {', '.join(trained)}: its logits there are too sure, so that context fitted on "
            "them trusts the patch too much, and scores on them mean nothing. Name patients it was not trained on."
        )
    if left_out:
        patient, reason = next(iter(left_out.items()))
        otherwise = " Evaluate the run, and give --with-test." if reason == CLOSED else ""
        raise DataError(f"Context cannot use patient {patient}: {reason}.{otherwise}")
