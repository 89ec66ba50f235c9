"""Who is where: leaks are real, files count as the folders say, and the hold-out is never trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ductal.data.audit import audit_rows, refuse_leaks
from ductal.data.cohort import Cohort
from ductal.data.naming import parse_patch_name
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.errors import HeldOutError, LeakError
from ductal.prior.division import RATIOS, divide, first_count, first_files, hold_out, seen_in_training
from ductal.prior.faults import BACKBONES, FAULTS, configurations

HONEST = BACKBONES["cnn"]
LEAKY = replace(HONEST, by_patch=True)


@pytest.fixture(scope="module")
def split(tiny_cohort: Cohort) -> Split:
    return make_split(tiny_cohort, "random", seed=3, ratios=RATIOS)


def patients(cohort: Cohort, rows: np.ndarray) -> set[str]:
    return set(cohort.table["patient"].iloc[rows])


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS])
def test_no_configuration_trains_or_chooses_on_the_hold_out(name: str, tiny_cohort: Cohort, split: Split) -> None:
    held_out = hold_out(tiny_cohort, split)
    assert patients(tiny_cohort, held_out) == set(split.parts["test"])
    for configuration in configurations([name], "cnn", one_by_one=True):
        for training in (configuration.training, configuration.honest):
            parts = divide(tiny_cohort, split, training, seed=3)
            for rows in (parts.train, parts.val):
                assert not patients(tiny_cohort, rows) & set(split.parts["test"])
            if training.by_patch:  # then the reported part leaks, and so it is not the hold-out either
                assert not set(parts.test) & set(held_out)


def test_the_honest_division_is_the_splits_own(tiny_cohort: Cohort, split: Split) -> None:
    parts = divide(tiny_cohort, split, HONEST, seed=3)
    assert parts.train.tolist() == split.rows(tiny_cohort, "train").tolist()
    assert parts.val.tolist() == split.rows(tiny_cohort, "val").tolist()
    assert parts.test.tolist() == hold_out(tiny_cohort, split).tolist()
    assert seen_in_training(tiny_cohort, parts.train, parts.test)[0] == 0


def test_the_package_itself_still_refuses(tiny_cohort: Cohort, split: Split) -> None:
    with pytest.raises(HeldOutError):
        split.rows(tiny_cohort, "test")
    parts = divide(tiny_cohort, split, LEAKY, seed=3)
    by_row = np.full(len(tiny_cohort), -1)
    for number, rows in enumerate((parts.train, parts.val, parts.test)):
        by_row[rows] = number
    with pytest.raises(LeakError, match="patients"):
        refuse_leaks(audit_rows(tiny_cohort, by_row))


def test_a_leaky_split_shares_patients(tiny_cohort: Cohort, split: Split) -> None:
    honest, leaky = (divide(tiny_cohort, split, training, seed=3) for training in (HONEST, LEAKY))
    files = np.concatenate([leaky.train, leaky.val, leaky.test])
    assert sorted(files) == sorted(np.concatenate([honest.train, honest.val]))
    assert len(leaky.train) == len(honest.train)
    assert abs(len(leaky.val) - len(leaky.test)) <= 1
    assert seen_in_training(tiny_cohort, leaky.train, leaky.test)[0] > 0.9
    again = divide(tiny_cohort, split, LEAKY, seed=3)
    assert again.train.tolist() == leaky.train.tolist()
    assert divide(tiny_cohort, split, LEAKY, seed=4).train.tolist() != leaky.train.tolist()


def test_duplicated_files_fall_on_both_sides(tiny_cohort: Cohort, split: Split) -> None:
    honest = divide(tiny_cohort, split, HONEST, seed=3)
    twice = divide(tiny_cohort, split, replace(LEAKY, copies=2), seed=3)
    files = np.concatenate([twice.train, twice.val, twice.test])
    assert sorted(files) == sorted(np.tile(np.concatenate([honest.train, honest.val]), 2))
    # A file's other copy is in training as often as training is large.
    share = len(twice.train) / len(files)
    assert seen_in_training(tiny_cohort, twice.train, twice.test)[1] == pytest.approx(share, abs=0.2)


def test_first_files_have_the_prevalence_that_the_folders_say(tiny_cohort: Cohort, split: Split) -> None:
    count = first_count(tiny_cohort)
    assert count == 4  # as 200 of 995, of 20
    chosen = first_files(tiny_cohort, count)
    folders: dict[tuple[str, int], list[str]] = {}
    for name in tiny_cohort.table["patch_id"]:
        read = parse_patch_name(name)
        assert read is not None
        folders.setdefault((read.patient, read.label), []).append(name)
    expected = {name for names in folders.values() for name in sorted(names)[:count]}
    assert set(tiny_cohort.table["patch_id"][chosen]) == expected
    parts = divide(tiny_cohort, split, replace(HONEST, first_files=True), seed=3)
    held_out = hold_out(tiny_cohort, split)
    positive = sum(
        min(len(names), count)
        for (patient, label), names in folders.items()
        if label and patient in split.parts["test"]
    )
    assert set(parts.test) == set(held_out[chosen[held_out]])
    assert tiny_cohort.labels[parts.test].sum() == positive
    assert tiny_cohort.labels[parts.test].mean() > tiny_cohort.labels[held_out].mean()
    assert len(parts.train) == chosen[split.rows(tiny_cohort, "train")].sum()


def test_the_whole_archive_has_200_first_files(tiny_cohort: Cohort) -> None:
    large = replace(tiny_cohort, info=tiny_cohort.info.model_copy(update={"n_patients": 1}))
    assert first_count(large) == 48
    huge = replace(large, table=large.table.loc[large.table.index.repeat(10)])
    assert first_count(huge) == 200
