"""Whose a folder is: trials, figures and the best recipe of two studies in one would be taken for each other's."""

from __future__ import annotations

from pathlib import Path

import optuna

from ductal.errors import RunError
from ductal.files import write_text
from ductal.tune.storage import IDENTITY

OWNER = "study.id"  # holds the identity of the study that writes there, and its name


def refuse_another(out: Path, name: str, known: optuna.Study | None) -> None:
    """Refuse a study that is not the one whose trials are in `out`.

    Args:
        out: folder for the study.
        name: of the study.
        known: the study as it is in the database; None where there is none yet.

    Raises:
        RunError: the folder is another's, in whatever database that one is.
    """
    try:
        identity, _, owner = (out / OWNER).read_text(encoding="utf-8").strip().partition(" ")
    except OSError:  # nobody's yet
        return
    if known is None or known.user_attrs.get(IDENTITY) != identity:
        raise RunError(
            f"{out} has the trials of the study {owner}, which is not the study {name} of this database. "
            "Name another --out for it."
        )


def claim(out: Path, study: optuna.Study) -> None:
    """Write down that `study` writes into `out`. Raises StorageError when the disk refuses."""
    write_text(out / OWNER, f"{study.user_attrs[IDENTITY]} {study.study_name}\n")
