"""Fixtures shared by all tests: a small synthetic cohort, and the real patches where they exist."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `cli_calls`
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many of them as cores: more threads would only wait for each other
    for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(_name, "1")
_CACHE = tempfile.TemporaryDirectory()
os.environ["DUCTAL_CACHE"] = _CACHE.name  # the user's own is neither read nor written

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_zip() -> Path:
    """The real sample of the IDC archive; it may not be redistributed, so it is not in this repository."""
    path = SHARED / "data" / "idc_sample.zip"
    if not path.exists():
        pytest.skip("the real patches (../shared/data/idc_sample.zip) are not on this machine")
    return path


@pytest.fixture(scope="session")
def tiny_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic archive of 12 patients with 20 patches each."""
    from ductal.data.synthetic import make_synthetic

    return make_synthetic(
        tmp_path_factory.mktemp("synthetic") / "tiny.zip", patients=12, patches_per_patient=20, seed=7
    )


@pytest.fixture(scope="session")
def tiny_cohort(tiny_zip: Path, tmp_path_factory: pytest.TempPathFactory):
    """The same archive, prepared."""
    from ductal.data.store import prepare

    return prepare(tiny_zip, tmp_path_factory.mktemp("cohort") / "tiny", workers=1)
