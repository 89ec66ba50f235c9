"""Fit the context of a run on slides it was not trained on, and say what it is worth on slides it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ductal.context.embedding_head import EmbeddingHead
from ductal.context.gather import gather, suitable_patients
from ductal.context.heads import Head, PatchOnly, Slide, Smoothing
from ductal.context.model import FILE, ContextModel
from ductal.context.nested import MIN_SLIDES, Calibrated, HeldOut, fit_calibrated, leave_one_slide_out
from ductal.context.report import write_report
from ductal.context.scores import score_models, slide_scores
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.errors import RunError
from ductal.files import atomic_folder, sole_writer
from ductal.record import model_digest
from ductal.slides.patients import Progress, RunProbabilities

FOLDER = "context"
HEADS = ("smoothing", "embeddings", "grid")


@dataclass(frozen=True, eq=False)
class Study:
    """What `fit_context` found.

    Attributes:
        model: written as `context.json`, fitted on all slides.
        models: as `ductal.context.scores.score_models`.
        slides: as `ductal.context.scores.slide_scores`.
        predictions: patch_id, patient, label, and probability and threshold of each head, none of which saw the
            patch's slide.
        left_out: why each patient was not used.
    """

    model: ContextModel
    models: pd.DataFrame
    slides: pd.DataFrame
    predictions: pd.DataFrame
    left_out: dict[str, str]


def fit_context(
    run_folder: str | Path,
    cohort: Cohort,
    split: Split,
    *,
    patients: Sequence[str] = (),
    heads: Sequence[str] = HEADS,
    with_test: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    report: Callable[[str], Any] = lambda _: None,
) -> Study:
    """Fit context and write it into the run: `context.json`, and the folder `context/` with the report.

    Args:
        run_folder: a finished run, whose patch model stays as it is.
        cohort: with complete slides that the run was not trained on; need not be the one it was trained on.
        split: the run's.
        patients: only these; by default all suitable ones, see `suitable_patients`.
        heads: of `HEADS`; "smoothing" is always among them, since it is what `context.json` holds.
        with_test: also take test patients that the final evaluation has opened.
        seed: of the heads that draw at random.
        progress: called with (done, total), of patches while they are read, then of slides for each head.
        report: called with a line of text when something begins.

    Raises:
        RunError: too few slides, an unknown head, or not a finished run.
        LeakError: a patient that is asked for was trained on.
        DataError: one is unknown or unsuitable. StorageError: the disk refused the write. BusyError: another command
            writes into the run.
    """
    unknown = [name for name in heads if name not in HEADS]
    if unknown:
        raise RunError(f"There is no context head {unknown[0]!r}. Use some of {', '.join(HEADS)}.")
    folder = Path(run_folder)
    source = RunProbabilities(folder, cohort, split)
    with sole_writer(folder):
        chosen, left_out = suitable_patients(source, patients, with_test=with_test)
        if len(chosen) < MIN_SLIDES:
            raise RunError(_too_few(chosen, left_out))
        report(f"Slides: {', '.join(chosen)}")
        slides = gather(source, chosen, embeddings=bool({"embeddings", "grid"} & set(heads)), progress=progress)
        held = []
        tried: list[Head] = [PatchOnly(), *(_head(name, seed) for name in HEADS if name in {"smoothing", *heads})]
        for head in tried:
            report(f"Leave-one-slide-out: {head.name}")
            held.append(leave_one_slide_out(head, slides, progress))
        final = fit_calibrated(Smoothing(), slides)
        model = _as_model(final, source.settings["d4"], model_digest(folder))
        models, each = score_models(slides, held), slide_scores(slides, held)
        found = Study(model, models, each, _predictions(cohort, slides, held), left_out)
        with atomic_folder(folder / FOLDER) as temporary:
            write_report(temporary, found, synthetic=cohort.info.synthetic)
        model.save(folder)
        return found


def _head(name: str, seed: int) -> Head:
    if name == "smoothing":
        return Smoothing()
    if name == "embeddings":
        return EmbeddingHead(seed=seed)
    from ductal.context.grid_head import GridHead  # TensorFlow

    return GridHead(seed=seed)


def _as_model(final: Calibrated, d4: bool, digest: str) -> ContextModel:
    head: Any = final.head
    return ContextModel(
        head.window, head.intercept, head.own, head.neighbourhood,
        final.scaling.temperature, final.scaling.bias, final.threshold, final.patients, d4, digest,
    )  # fmt: skip


def _predictions(cohort: Cohort, slides: Sequence[Slide], held: Sequence[HeldOut]) -> pd.DataFrame:
    rows = np.concatenate([slide.rows for slide in slides])
    table = cohort.table.iloc[rows][["patch_id", "patient", "label"]].reset_index(drop=True)
    for each in held:
        name = each.head.name.replace("-", "_")
        sizes = [len(slide.rows) for slide in slides]
        table[f"{name}_prob"] = each.probs
        table[f"{name}_threshold"] = np.repeat([model.threshold for model in each.models], sizes)
    return table


def _too_few(chosen: Sequence[str], left_out: dict[str, str]) -> str:
    reasons = pd.Series(left_out, dtype=object).value_counts()
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return (
        f"Context is fitted and scored leave-one-slide-out, which takes {MIN_SLIDES} complete slides that the run "
        f"was not trained on. Found: {', '.join(chosen) or 'none'}; left out: {counted or 'none'}. Name a cohort "
        "with complete slides of other patients (--cohort), or hold some out when training."
    )


__all__ = ["FILE", "FOLDER", "HEADS", "Study", "fit_context"]
