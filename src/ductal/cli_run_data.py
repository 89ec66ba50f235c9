"""The data a run was trained with, for the commands that open a run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ductal.errors import RunError

if TYPE_CHECKING:
    from ductal.data.cohort import Cohort
    from ductal.data.split import Split


def data_of(run_folder: Path, cohort: Path | None) -> tuple[Cohort, Split]:
    """The cohort and split a run was trained with: recorded path, or the folder the user names."""
    from ductal.data.cohort import Cohort
    from ductal.data.split import Split
    from ductal.loading.links import refuse_links
    from ductal.loading.records import read_json

    refuse_links(run_folder)
    try:
        record = read_json(run_folder / "run.json")
        recorded = Path(record["cohort_folder"])
        control = record.get("control", False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{run_folder} is not a run folder ({error}). Name a folder under runs/.") from error
    if control:
        raise RunError(
            f"{run_folder} is a control model, which is fitted and evaluated at once by `ductal run`. "
            "Name the folder of a trained recipe."
        )
    return Cohort.open(cohort or recorded), Split.load(run_folder / "split.json")
