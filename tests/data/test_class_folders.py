"""A cohort written as two class folders, and prepared again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_archives import encoded, good_files, noise, zipped

from ductal.data.store import export_folders, prepare
from ductal.errors import DataError


def test_export_and_prepare_again_is_the_same_cohort(tmp_path: Path) -> None:
    files = good_files(2, 4) | {"IDC/SYNTHETIC.txt": b"drawn"}
    cohort = prepare(zipped(tmp_path / "s.zip", files), tmp_path / "c", limit_per_class=2, workers=1)
    assert export_folders(cohort, tmp_path / "e") == 8
    assert export_folders(cohort, tmp_path / "e") == 8  # an earlier export is replaced
    again = prepare(tmp_path / "e", tmp_path / "c2", workers=1)
    chosen = cohort.table["selected"].to_numpy()
    assert again.table["patch_id"].tolist() == cohort.table["patch_id"][chosen].tolist()
    np.testing.assert_array_equal(again.pixels, cohort.pixels[chosen])
    assert again.info.has_patients
    assert again.info.synthetic
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(DataError, match=r"notes\.txt"):
        export_folders(cohort, tmp_path / "mine")


def test_export_keeps_patients_that_are_not_in_the_names(tmp_path: Path) -> None:
    files = {f"{p}/{c}/img.png": encoded(noise(10 * i + c)) for i, p in enumerate("ab") for c in (0, 1)}
    cohort = prepare(zipped(tmp_path / "s.zip", files), tmp_path / "c", workers=1)
    export_folders(cohort, tmp_path / "e")
    again = prepare(tmp_path / "e", tmp_path / "c2", patients_csv=tmp_path / "e" / "patients.csv", workers=1)
    before, after = (
        set(part.table[["patient", "label", "sha1"]].apply(tuple, axis=1)) for part in (cohort, again)
    )
    assert before == after
    assert len(before) == 4
