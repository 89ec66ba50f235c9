"""Slides of a cohort's patients put together from their patches: pictures, tables, and figures for each slide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ductal.context.model import FILE, ContextModel
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.errors import DataError, RunError
from ductal.evaluation.arrays import expit, logit
from ductal.files import atomic_folder
from ductal.loading.records import read_table
from ductal.slides.figures import draw_slide
from ductal.slides.patients import ROLE_WORDS, Progress, RunProbabilities
from ductal.slides.rebuilt import RebuiltSlide, places

TABLE = "rebuilt.csv"  # another name than that of `ductal slide`, whose results must not be taken for these
HELD_OUT = "context/predictions.parquet"  # see ductal.context.study
CONTEXT, PATCH = "slide context", "patch-only"
LEFT_OUT = "context fitted on other slides"
FLATTERED = "context fitted on this slide: figures flatter it"


def rebuild(
    run_folder: str | Path,
    cohort: Cohort,
    split: Split,
    out: str | Path,
    *,
    patients: Sequence[str] = (),
    context: bool | None = None,
    tissue: bool = True,
    spacing_um: float | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Put slides together and write `out`: a picture and a table of each patient, and `rebuilt.csv`.

    Args:
        run_folder: a finished run.
        cohort: whose patients are put together.
        split: the run's.
        out: a folder that is new, empty, or an earlier one of these, which is replaced.
        patients: ids; by default those whose patches the run has predicted.
        context: refine calls by their neighbours, with the run's `context.json`; None does so where it has one.
        tissue: show the tissue itself. Leave it out where pictures of patients must not go.
        spacing_um: micrometres a pixel of the patches, for areas and the scale bar; by default what the cohort knows.
        progress: called with (done, in all), of patches while they are predicted, then of slides.

    Returns:
        What was written as `rebuilt.csv`; see `RebuiltSlide.figures`.

    Raises:
        DataError: an unknown patient, no known places, or `out` holds something else.
        HeldOutError: a test patient that the final evaluation has not opened.
        RunError: not a finished run, nothing predicted, or no usable context where it is asked for.
        StorageError: the disk refused the write.
    """
    out = Path(out)
    _check(out, spacing_um)
    source = RunProbabilities(run_folder, cohort, split)
    chosen = list(dict.fromkeys(patients)) or list(source.saved)
    if not chosen:
        raise RunError(
            f"{run_folder} has not predicted all patches of any patient of the cohort {cohort.info.name!r}. "
            f"Evaluate the run, or name patients, such as {', '.join(list(source.roles)[:3])}."
        )
    refiner = _refiner(source, context)
    spacing = spacing_um or cohort.info.spacing_um
    probs = source.of(chosen, progress)
    figures = []
    with atomic_folder(out) as folder:
        for number, patient in enumerate(chosen, start=1):
            slide = _slide(source, patient, probs[patient], refiner, spacing)
            slide.table().to_csv(folder / f"{patient}.csv", index=False, float_format="%.6g")
            note = "SYNTHETIC: no patient, no result" if cohort.info.synthetic else ""
            draw_slide(slide, folder / f"{patient}.png", pixels=cohort.pixels if tissue else None, note=note)
            figures.append(slide.figures())
            if progress:
                progress(number, len(chosen))
        table = pd.DataFrame(figures)
        table.to_csv(folder / TABLE, index=False, float_format="%.6g")
    return table


class _Refiner:
    """Context for the slides of one run; patients that it was fitted on get what heads fitted on others said."""

    def __init__(self, model: ContextModel, held_out: pd.DataFrame) -> None:
        self.model, self._held_out = model, held_out

    def apply(self, slide: RebuiltSlide) -> tuple[np.ndarray, float, str]:
        """Probabilities float64 (n,), the threshold, and what to say of them."""
        if slide.patient in self.model.patients:
            at = self._held_out.index.get_indexer(pd.Index(slide.patch_ids))
            if (at >= 0).all():
                own = self._held_out.iloc[at]
                return own["smoothing_prob"].to_numpy(np.float64), float(own["smoothing_threshold"].iloc[0]), LEFT_OUT
        refined = expit(self.model.refine(slide.grid, logit(slide.probs)))
        return refined, self.model.threshold, FLATTERED if slide.patient in self.model.patients else ""


def _refiner(source: RunProbabilities, wanted: bool | None) -> _Refiner | None:
    if wanted is False or (wanted is None and not (source.folder / FILE).is_file()):
        return None
    model = ContextModel.of_run(source.folder, d4=source.settings["d4"])
    path = source.folder / HELD_OUT
    columns = ["patch_id", "smoothing_prob", "smoothing_threshold"]
    try:
        held_out = read_table(path, columns) if path.is_file() else pd.DataFrame(columns=columns)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}). Fit the context again: ductal context RUN.") from error
    return _Refiner(model, held_out.set_index("patch_id"))


def _slide(
    source: RunProbabilities, patient: str, probs: np.ndarray, refiner: _Refiner | None, spacing: float | None
) -> RebuiltSlide:
    rows, cohort = source.rows(patient), source.cohort
    grid, left_out = places(cohort, patient, rows)
    ids = cohort.table["patch_id"].iloc[rows].tolist()
    role = ROLE_WORDS[source.roles[patient]]
    plain = RebuiltSlide(
        patient, role, PATCH, grid, left_out, ids, cohort.labels[rows], probs.astype(np.float64),
        source.settings["threshold"], spacing, rows,
    )  # fmt: skip
    if refiner is None:
        return plain
    refined, threshold, remark = refiner.apply(plain)
    return RebuiltSlide(
        patient, f"{role}; {remark}" if remark else role, CONTEXT, grid, left_out, ids, plain.labels, refined,
        threshold, spacing, rows,
    )  # fmt: skip


def _check(out: Path, spacing_um: float | None) -> None:
    if spacing_um is not None and not 0 < spacing_um < 1000:
        raise DataError(f"The spacing is in micrometres a pixel, above 0, such as 4. Received: {spacing_um}.")
    own = _written(out)
    foreign = sorted(item.name for item in out.iterdir() if item.name not in own) if out.is_dir() else []
    if foreign or (out.exists() and not out.is_dir()):
        what = f"holds {foreign[0]!r}" if foreign else "is a file"
        raise DataError(f"{out} {what}, so it is not replaced by rebuilt slides. Choose a new or empty folder.")


def _written(out: Path) -> set[str]:
    """Names of what an earlier call has written to `out`, as its table lists it; none where there is no table."""
    try:
        patients = pd.read_csv(out / TABLE, usecols=["patient"], dtype=str, keep_default_na=False)["patient"]
    except (OSError, ValueError):
        return set()
    return {TABLE, *(f"{patient}.{kind}" for patient in patients for kind in ("csv", "png"))}
