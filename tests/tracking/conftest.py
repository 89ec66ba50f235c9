"""Lets the tests import `small_training`; one easy cohort for all."""

import sys
from pathlib import Path

import pytest

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "training")]


@pytest.fixture(scope="session")
def cohort(tiny_cohort: Cohort) -> Cohort:
    from small_training import easy

    return easy(tiny_cohort)


@pytest.fixture(scope="session")
def split(cohort: Cohort) -> Split:
    return make_split(cohort, "random", seed=1)
