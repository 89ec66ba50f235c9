"""A folder of slides: a result each; a bad one is told and does not stop the rest; finished ones are not repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ductal.errors import BusyError, DataError, RunError, StorageError
from ductal.files import atomic_file, sweep
from ductal.slides.analyse import SlideAnalyser, SlideResult
from ductal.slides.identity import pseudonym_of
from ductal.slides.judging import Progress
from ductal.slides.sources import SLIDE_SUFFIXES

TABLE = "slides.csv"
Bar = Callable[[str], AbstractContextManager[Any]]  # a progress bar, with the text before it


@dataclass(frozen=True)
class Outcome:
    """What became of one slide: a result, or the message why there is none."""

    path: Path
    name: str  # of its folder under the output
    result: SlideResult | None
    problem: str
    busy: bool = False  # whether that is another writer


def find_slides(source: Path, out: Path) -> list[tuple[Path, str]]:
    """Slides in `source`, a file or a folder with its sub-folders, and the names of their result folders.

    Hidden files and what lies in `out` are left out. Of the files of DICOM in one folder, which are one slide,
    the first stands for all.

    Raises:
        DataError: there is none.
    """
    if source.is_file():
        return [(source, source.name)]
    if not source.is_dir():
        raise DataError(f"{source} does not exist. Name a slide, or a folder of slides.")
    found, own = [], out.resolve()
    series: set[Path] = set()
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.suffix.lower() not in SLIDE_SUFFIXES or hidden or not path.is_file():
            continue
        if own in path.resolve().parents and own != source.resolve():
            continue
        if path.suffix.lower() == ".dcm":
            if path.parent in series:
                continue
            series.add(path.parent)
        found.append((path, name.as_posix()))
    if not found:
        raise DataError(f"There is no slide in {source}. Known endings: {', '.join(SLIDE_SUFFIXES)}.")
    return found


def analyse_slides(
    analyser: SlideAnalyser,
    source: str | Path,
    out: str | Path,
    *,
    mpp: float | None = None,
    overwrite: bool = False,
    bar: Bar | None = None,
    tell: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Analyse a slide, or each slide of a folder, into OUT/<file name or pseudonym>/, listed in OUT/slides.csv.

    Slides that have a result of the same run and settings are skipped, so that an interrupted call goes on.

    Args:
        analyser: the loaded run.
        source: a slide, or a folder.
        out: the folder for all results.
        mpp: see `analyse_slide`.
        overwrite: compute also what is there.
        bar: makes a context manager that yields a progress callback.
        tell: called with each outcome as it comes.

    Raises:
        DataError: no slide in `source`.
        RunError: the run cannot be used.
        StorageError: the disk refused, which would hit every further slide.
    """
    source, out = Path(source), Path(out)
    outcomes: list[Outcome] = []
    slides = find_slides(source, out)
    for number, (path, name) in enumerate(slides, start=1):
        name = name_of(analyser, path, name, number)
        label = name if len(slides) == 1 else f"{number}/{len(slides)} {name}"
        with bar(label) if bar else nullcontext() as progress:
            outcome = analyse_one(analyser, path, name, out, mpp=mpp, overwrite=overwrite, progress=progress)
        outcomes.append(outcome)
        if tell:
            tell(outcome)
        write_table(out, outcomes)
    return outcomes


def name_of(analyser: SlideAnalyser, path: Path, name: str, number: int) -> str:
    """What a slide that `find_slides` calls `name`, and which is the `number`th, is called in the results."""
    if not analyser.pseudonyms:
        return name
    try:
        return pseudonym_of(path)
    except DataError:  # told when it is analysed
        return f"unreadable-{number}"


def analyse_one(
    analyser: SlideAnalyser,
    path: Path,
    name: str,
    out: Path,
    *,
    mpp: float | None,
    overwrite: bool,
    progress: Progress | None = None,
) -> Outcome:
    """One slide of a batch into `out / name`; one that cannot be used, or is being written, is an outcome, too.

    Raises:
        RunError, StorageError: what would hit every further slide.
    """
    folder = out / name
    sweep(folder)
    try:
        result = analyser.analyse(path, folder, mpp=mpp, overwrite=overwrite, progress=progress)
    except BusyError as error:  # of this slide; the others may be free
        return Outcome(path, name, None, str(error), busy=True)
    except (RunError, StorageError):
        raise
    except DataError as error:
        return Outcome(path, name, None, str(error).replace(str(path), name))
    return Outcome(path, name, result, "")


def write_table(out: Path, outcomes: Sequence[Outcome]) -> None:
    """A row for each outcome in OUT/slides.csv."""
    rows = []
    for outcome in outcomes:
        found = outcome.result.summary["found"] if outcome.result else {}
        flags = outcome.result.summary["flags"] if outcome.result else []
        rows.append(
            {
                "slide": outcome.name,
                "done": outcome.result is not None,
                "tumour_area_mm2": found.get("tumour_area_mm2"),
                "tissue_area_mm2": found.get("tissue_area_mm2"),
                "tumour_share_of_tissue": found.get("tumour_share_of_tissue"),
                "mean_probability": found.get("mean_probability"),
                "flags": " ".join(flag["code"] for flag in flags),
                "problem": outcome.problem,
            }
        )
    with atomic_file(out / TABLE) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
