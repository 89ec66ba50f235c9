"""Splits: whole patients, right sizes, both classes, reproducible, and a test part that stays closed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ductal.data.cohort import Cohort, CohortInfo
from ductal.data.split import PARTS, Split, load_split, published_ids
from ductal.data.splitting import make_split
from ductal.errors import DataError, HeldOutError, LeakError


def fake(sizes: dict[str, tuple[int, int]], *, has_patients: bool = True) -> Cohort:
    """A cohort without pixels: patient -> (negatives, positives)."""
    rows = [
        (patient, 50 * k + 1, 1, label, f"{patient}-{k}")
        for patient, (negatives, positives) in sorted(sizes.items())
        for k, label in enumerate([0] * negatives + [1] * positives)
    ]
    table = pd.DataFrame(rows, columns=["patient", "x", "y", "label", "sha1"])
    table["patch_id"] = table["sha1"]
    table["selected"] = np.arange(len(table)) % 2 == 0
    if not has_patients:
        table["patient"] = ""
    info = CohortInfo(
        name="fake", source_kind="zip", synthetic=False, has_patients=has_patients, fingerprint="",
        n_patches=len(table), n_patients=len(sizes), n_positive=int(table["label"].sum()), quarantined={},
        selection={}, notes=[], ductal_version="0", created="",
    )  # fmt: skip
    return Cohort(Path("fake"), info, table, np.zeros((len(table), 50, 50, 3), np.uint8), table[:0])


def both_classes(cohort: Cohort, groups: list[str], column: str = "patient") -> bool:
    return set(cohort.table.loc[cohort.table[column].isin(groups), "label"]) == {0, 1}


PATIENTS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30)), min_size=3, max_size=40)


@settings(max_examples=40, deadline=None)
@given(PATIENTS, st.integers(0, 5), st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.2, 0.0), (0.4, 0.3, 0.3)]))
def test_random_divides_all_patients_and_gives_every_part_both_classes(sizes, seed, ratios) -> None:
    cohort = fake({f"p{k:03}": size for k, size in enumerate(sizes)})
    split = make_split(cohort, "random", seed=seed, ratios=ratios)
    listed = [patient for part in PARTS for patient in split.parts[part]]
    assert sorted(listed) == sorted(set(cohort.table["patient"]))
    assert all(split.parts[part] == sorted(split.parts[part]) for part in PARTS)
    for part, ratio in zip(PARTS, ratios, strict=True):
        assert both_classes(cohort, split.parts[part]) if ratio else split.parts[part] == []
    assert split == make_split(cohort, "random", seed=seed, ratios=ratios)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_random_hits_sizes_and_prevalence(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cohort = fake({f"p{k:03}": tuple(rng.integers((10, 1), (200, 90))) for k in range(60)})
    split = make_split(cohort, "random", seed=seed)
    counts, total = split.count(cohort), len(cohort)
    prevalence = cohort.labels.mean()
    for part, ratio in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
        assert counts[part]["patches"] / total == pytest.approx(ratio, abs=0.03)
        assert counts[part]["patients"] / 60 == pytest.approx(ratio, abs=0.05)
        assert counts[part]["positives"] / counts[part]["patches"] == pytest.approx(prevalence, abs=0.04)


def test_the_seed_matters() -> None:
    rng = np.random.default_rng(0)
    cohort = fake({f"p{k:03}": tuple(rng.integers((10, 1), (200, 90))) for k in range(60)})
    tests = {tuple(make_split(cohort, "random", seed=seed).parts["test"]) for seed in range(5)}
    assert len(tests) == 5


def test_classes_that_only_some_patients_have_are_given_to_every_part() -> None:
    cohort = fake({**{f"n{k}": (30, 0) for k in range(20)}, "a": (2, 1), "b": (2, 1), "c": (2, 1)})
    for seed in range(5):
        split = make_split(cohort, "random", seed=seed)
        assert all(both_classes(cohort, split.parts[part]) for part in PARTS)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=5, max_size=25), st.integers(3, 5)
)
def test_kfold_tests_every_patient_once(sizes, folds: int) -> None:
    cohort = fake({f"p{k:03}": size for k, size in enumerate(sizes)})
    splits = [make_split(cohort, "kfold", fold=fold, folds=folds) for fold in range(folds)]
    everyone = sorted(set(cohort.table["patient"]))
    assert sorted(patient for split in splits for patient in split.parts["test"]) == everyone
    for k, split in enumerate(splits):
        assert sorted(itertools.chain(*split.parts.values())) == everyone
        assert split.parts["val"] == splits[(k + 1) % folds].parts["test"]
        assert split.fold == k
        assert all(both_classes(cohort, split.parts[part]) for part in PARTS)


def test_published_lists_are_the_published_ones() -> None:
    lists = published_ids()
    assert {part: len(ids) for part, ids in lists.items()} == {"train": 84, "val": 29, "test": 49}
    assert len(set().union(*lists.values())) == 162


def test_published_keeps_what_the_cohort_has_and_says_so() -> None:
    lists = published_ids()
    held = [*lists["train"][:3], *lists["val"][:2]]
    cohort = fake(dict.fromkeys([*held, "99991", "99992"], (3, 2)))
    split = make_split(cohort, "published")
    assert split.parts == {"train": lists["train"][:3], "val": lists["val"][:2], "test": []}
    assert "train: 3 of 84 published train patients are in this cohort" in split.notes
    assert (
        "test: 0 of 49 published test patients are in this cohort; evaluation uses validation patients"
        in split.notes
    )
    assert split.part_of_rows(cohort).tolist().count(-1) == 10
    more = make_split(cohort, "published+extra")
    assert more.parts["train"] == sorted([*lists["train"][:3], "99991", "99992"])
    assert more.parts["val"] == split.parts["val"]
    assert any("2 patients of no published list were added" in note for note in more.notes)


def test_published_with_all_patients_has_no_notes() -> None:
    cohort = fake({patient: (1, 1) for ids in published_ids().values() for patient in ids})
    split = make_split(cohort, "published")
    assert split.parts == published_ids()
    assert split.notes == []


def test_unknown_patients_are_grouped_by_content() -> None:
    cohort = fake({"p": (40, 20)}, has_patients=False)
    cohort.table.loc[1, "sha1"] = cohort.table.loc[0, "sha1"]
    split = make_split(cohort, "random", ratios=(0.5, 0.25, 0.25))
    assert split.by == "content"
    assert "not by patient" in split.notes[0]
    assert "likely inflated" in split.notes[0]
    part = split.part_of_rows(cohort)
    assert part[0] == part[1]
    assert sorted(np.unique(part)) == [0, 1, 2]
    with pytest.raises(DataError, match="needs patient ids"):
        make_split(cohort, "published")


def test_rows_use_selected_for_training_and_keep_test_closed() -> None:
    cohort = fake({f"p{k}": (6, 4) for k in range(10)})
    split = make_split(cohort, "random", ratios=(0.6, 0.2, 0.2))
    train, val = split.rows(cohort, "train"), split.rows(cohort, "val")
    assert train.dtype == np.int64
    assert cohort.table["selected"].to_numpy()[train].all()
    assert len(train) == 30
    assert len(val) == 20
    assert set(cohort.table["patient"].iloc[val]) == set(split.parts["val"])
    with pytest.raises(HeldOutError, match="final evaluation"):
        split.rows(cohort, "test")
    test = split.rows(cohort, "test", final_evaluation=True)
    assert set(cohort.table["patient"].iloc[test]) == set(split.parts["test"])
    assert split.count(cohort)["train"] == {"patients": 6, "patches": 60, "positives": 24}
    with pytest.raises(DataError, match="no part 'training'"):
        split.rows(cohort, "training")
    with pytest.raises(DataError, match="made for this cohort"):
        split.rows(fake({"other": (3, 3)}), "val")


def test_save_and_load(tmp_path: Path) -> None:
    split = make_split(fake({f"p{k}": (6, 4) for k in range(10)}), "kfold", fold=2)
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split


def test_load_refuses_overlap_and_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"name": "mine", "parts": {"train": ["1", "2"], "val": ["2"], "test": []}}))
    with pytest.raises(LeakError, match="'2' in train and in val"):
        Split.load(path)
    path.write_text("{")
    with pytest.raises(DataError, match="is not a split"):
        Split.load(path)
    with pytest.raises(DataError, match="Could not read"):
        Split.load(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("sizes", "name", "options", "message"),
    [
        ({"a": (5, 5)}, "random", {}, "1 patients: too few"),
        ({"a": (5, 0), "b": (5, 0), "c": (1, 0)}, "random", {}, "only class 0"),
        ({}, "random", {}, "no patches"),
        ({"a": (5, 5), "b": (5, 0), "c": (1, 0)}, "random", {}, "each hold both classes"),
        ({"a": (5, 5), "b": (5, 5), "c": (1, 1)}, "kfold", {}, "too few for 5 folds"),
        ({"a": (5, 5), "b": (5, 5)}, "published", {}, "'random'"),
        ({"10254": (5, 5), "b": (5, 5)}, "published", {}, "has no val patients"),
        ({"a": (5, 5), "b": (5, 5)}, "patch", {}, "published, published\\+extra, random, kfold"),
        ({"a": (5, 5), "b": (5, 5)}, "random", {"ratios": (0.8, 0.3, -0.1)}, "none negative"),
        ({"a": (5, 5), "b": (5, 5)}, "random", {"ratios": (0.8, 0.1, 0.2)}, "sum to 1"),
        ({"a": (5, 5), "b": (5, 5)}, "random", {"ratios": (1.0, 0.0, 0.0)}, "only the last 0"),
        ({"a": (5, 5), "b": (5, 5)}, "random", {"ratios": (0.5, 0.5)}, "three shares"),
        ({"a": (5, 5), "b": (5, 5)}, "kfold", {"folds": 2}, "3 folds"),
        ({"a": (5, 5), "b": (5, 5)}, "kfold", {"fold": 5}, "folds - 1"),
    ],
)
def test_what_cannot_be_split_is_refused(sizes, name, options, message) -> None:
    with pytest.raises(DataError, match=message):
        make_split(fake(sizes), name, **options)


def test_few_large_patients_among_many_small_ones_do_not_upset_the_shares() -> None:
    sizes = {f"s{k:03}": (10, 4) for k in range(90)} | {f"big{k}": (1000 + 90 * k, 400) for k in range(8)}
    cohort = fake(sizes)
    for seed in range(4):
        counts = make_split(cohort, "random", seed=seed, ratios=(0.5, 0.25, 0.25)).count(cohort)
        shares = [counts[part]["patches"] / len(cohort) for part in PARTS]
        assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.02)


def test_a_split_of_ones_own_keeps_what_the_cohort_has_and_says_what_not(tmp_path: Path) -> None:
    cohort = fake({"a": (3, 2), "b": (3, 2), "c": (3, 2), "d": (1, 1)})
    Split(name="mine", parts={"train": ["a", "zz"], "val": ["b"], "test": ["c"]}).save(tmp_path / "s.json")
    split = load_split(tmp_path / "s.json", cohort)
    assert (split.name, split.parts) == ("mine", {"train": ["a"], "val": ["b"], "test": ["c"]})
    assert split.notes == [
        "train: 1 of 2 listed are in this cohort", "left out: 1 of this cohort are in no part of the split"
    ]  # fmt: skip
    Split(name="mine", parts={"train": ["a"], "val": ["zz"]}).save(tmp_path / "none.json")
    with pytest.raises(DataError, match="1 groups for val, and none of them"):
        load_split(tmp_path / "none.json", cohort)
    Split(name="mine", parts={"train": ["a"], "val": ["b"]}).save(tmp_path / "two.json")
    assert load_split(tmp_path / "two.json", cohort).parts["test"] == []
    (tmp_path / "leak.json").write_text('{"name": "x", "parts": {"train": ["a"], "val": ["a"]}}')
    with pytest.raises(LeakError):
        load_split(tmp_path / "leak.json", cohort)
