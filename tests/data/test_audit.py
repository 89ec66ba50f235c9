"""The audit finds every kind of planted leak, and finds none where there is none."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ductal.data import near_duplicates as near
from ductal.data.audit import AuditReport, audit_rows, audit_split, refuse_leaks
from ductal.data.cohort import Cohort, CohortInfo
from ductal.data.naming import parse_patch_name
from ductal.data.split import PARTS, Split
from ductal.errors import LeakError

IDS = ("101", "202", "303", "404", "505", "606")
CLEAN = Split(name="mine", parts={"train": list(IDS[:4]), "val": [IDS[4]], "test": [IDS[5]]})


def texture(rng: np.random.Generator) -> np.ndarray:
    """A patch with structure at all scales: noise with a 1/f spectrum in purple to pink."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(50), np.fft.fftfreq(50)))
    spectrum = np.fft.fft2(rng.normal(size=(50, 50))) / np.maximum(frequency, 0.02)
    field = np.real(np.fft.ifft2(spectrum))
    field = (field - field.mean()) / field.std()
    return np.clip([180, 130, 180] + field[..., None] * [20, 28, 16], 0, 255).astype(np.uint8)


def build(pixels: np.ndarray, patients: list[str], x: list[int], y: list[int], **info: object) -> Cohort:
    table = pd.DataFrame({"patient": patients, "x": x, "y": y})
    table["label"] = np.arange(len(table), dtype=np.int8) % 2
    table["patch_id"] = [f"{p}_x{a}_y{b}_{k}" for k, (p, a, b) in enumerate(zip(patients, x, y, strict=True))]
    table["sha1"] = [hashlib.sha1(patch.tobytes()).hexdigest() for patch in pixels]
    table["selected"] = True
    settings = {
        "name": "fake", "source_kind": "zip", "synthetic": False, "has_patients": True, "fingerprint": "",
        "n_patches": len(table), "n_patients": len(set(patients)), "n_positive": int(table["label"].sum()),
        "quarantined": {}, "selection": {}, "notes": [], "ductal_version": "0", "created": "",
    }  # fmt: skip
    return Cohort(Path("fake"), CohortInfo(**{**settings, **info}), table, pixels, table[:0])


def cohort(**info: object) -> Cohort:
    """Six patients with 12 different patches each, on a grid."""
    rng = np.random.default_rng(3)
    pixels = np.stack([texture(rng) for _ in range(72)])
    grid = [(50 * (k % 4) + 1, 50 * (k // 4) + 1) for k in range(12)] * 6
    patients = [patient for patient in IDS for _ in range(12)]
    return build(pixels, patients, [x for x, _ in grid], [y for _, y in grid], **info)


def planted(copy: np.ndarray) -> Cohort:
    """The same, with `copy` in place of the first patch of the validation patient (row 48)."""
    base = cohort()
    pixels = base.pixels.copy()
    pixels[48] = copy
    return build(pixels, base.table["patient"].tolist(), base.table["x"].tolist(), base.table["y"].tolist())


def jpeg(patch: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(patch).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def failed(report: AuditReport) -> dict[str, int]:
    return {check.name: check.pairs for check in report.checks if check.status == "failed"}


def test_clean_split_passes() -> None:
    report = audit_split(cohort(), CLEAN)
    assert report.passed
    assert [check.status for check in report.checks] == ["passed"] * 4
    assert report.notes == []
    refuse_leaks(report)


def test_patient_in_two_parts() -> None:
    base = cohort()
    part = CLEAN.part_of_rows(base)
    part[0] = PARTS.index("test")
    report = audit_rows(base, part)
    # Row 0 lies in a corner of its slide: three neighbours are left in train.
    assert failed(report) == {"patients": 1, "adjacent patches": 3}
    with pytest.raises(LeakError, match=r"patients: 1 \(e\.g\. patient 101 in train and test\)"):
        refuse_leaks(report)
    part[1:12] = -1  # rows that are not used cannot leak
    assert audit_rows(base, part).passed


def test_random_split_of_patches_is_refused() -> None:
    base = cohort()
    shas = np.random.default_rng(0).permutation(base.table["sha1"].to_numpy(dtype=object))
    groups = [sorted(part) for part in np.split(shas, [40, 56])]
    split = Split(name="patches", by="content", parts=dict(zip(PARTS, groups, strict=True)))
    report = audit_split(base, split)
    assert failed(report).keys() == {"patients", "adjacent patches"}
    assert all(1 <= len(check.examples) <= 3 for check in report.checks if check.status == "failed")
    with pytest.raises(LeakError, match="Make it again by patient"):
        refuse_leaks(report)


def test_exact_copy() -> None:
    base = cohort()
    report = audit_split(planted(base.pixels[5]), CLEAN)
    assert failed(report) == {"identical patches": 1}
    with pytest.raises(LeakError, match="identical patches: 1"):
        refuse_leaks(report)


COPIES = {
    "jpeg 85": lambda patch: jpeg(patch, 85),
    "brighter": lambda patch: np.minimum(patch.astype(int) + 3, 255).astype(np.uint8),
    "mirrored": lambda patch: patch[:, ::-1],
    "turned": lambda patch: np.rot90(patch),
    "transposed": lambda patch: patch.transpose(1, 0, 2),
    "turned jpeg": lambda patch: jpeg(np.ascontiguousarray(np.rot90(patch, 3)[::-1]), 85),
    "contrast": lambda patch: (128 + 0.9 * (patch.astype(int) - 128)).astype(np.uint8),
}


@pytest.mark.parametrize("kind", COPIES)
def test_near_copy(kind: str) -> None:
    source = cohort()
    for row in (0, 17, 66):  # two in train, one in test; the copy is in validation
        found = planted(COPIES[kind](source.pixels[row]))
        report = audit_split(found, CLEAN)
        assert failed(report) == {"near duplicates": 1}
        example = report.checks[2].examples[0]
        assert found.table["patch_id"][row] in example
        assert found.table["patch_id"][48] in example
        with pytest.raises(LeakError, match="near duplicates: 1"):
            refuse_leaks(report)


def test_search_is_exhaustive_in_all_orientations() -> None:
    """Against brute force over all eight orientations of all pairs, with patches of no clear slope."""
    rng = np.random.default_rng(1)
    base = np.stack([texture(rng) for _ in range(60)])
    base[:20] = (base[:20] // 2 + base[:20, ::-1, ::-1] // 2).astype(np.uint8)  # slope exactly 0
    turned = np.stack([np.rot90(p, k % 4)[:, :: 1 if k % 2 else -1] for k, p in enumerate(base)])
    pixels = np.concatenate([base, turned])
    left, right = near.thumbnails(pixels, np.arange(60)), near.thumbnails(pixels, np.arange(60, 120))
    expected = set()
    for turn in range(4):
        for step in (1, -1):
            images = np.rot90(left.images, turn, (1, 2))[:, :, ::step].reshape(60, -1)
            cosine = images @ right.images.reshape(60, -1).T
            expected |= {(int(a), int(b) + 60) for a, b in np.argwhere(cosine >= near.THUMBNAIL_COSINE)}
    assert {(k, k + 60) for k in range(60)} <= expected
    found = {
        (int(a), int(b))
        for rows in near._candidates(left, right, None)
        for a, b in zip(rows[0], rows[2], strict=True)
    }
    assert found == expected
    assert near.near_duplicates(pixels, left, right) == [(k, k + 60) for k in range(60)]
    assert near.near_duplicates(pixels, right, left.of(np.arange(120) < 3)) == [(60, 0), (61, 1), (62, 2)]


def test_patches_without_texture_are_not_compared() -> None:
    blank = np.full((2, 50, 50, 3), 240, np.uint8)
    blank[1] -= 1
    assert len(near.thumbnails(blank, np.arange(2)).rows) == 0


@pytest.mark.parametrize(("step", "pairs"), [((50, 50), 1), ((0, 0), 1), ((51, 0), 0), ((0, 100), 0)])
def test_adjacent_means_within_50_px(step: tuple[int, int], pairs: int) -> None:
    rng = np.random.default_rng(0)
    pixels = np.stack([texture(rng) for _ in range(3)])
    slide = build(pixels, ["7", "7", "8"], [501, 501 + step[0], 501], [501, 501 + step[1], 501])
    report = audit_rows(slide, np.array([0, 1, 1]))
    assert failed(report).get("adjacent patches", 0) == pairs


def test_unknown_patients_and_places_are_not_said_to_pass() -> None:
    base = cohort(has_patients=False)
    part = np.arange(72) % 3
    report = audit_rows(base, part)
    assert [check.status for check in report.checks] == ["not testable", "passed", "passed", "not testable"]
    assert report.status == "not testable"
    assert not report.passed
    refuse_leaks(report)
    placeless = cohort()
    placeless.table[["x", "y"]] = -1
    assert audit_split(placeless, CLEAN).checks[3].status == "not testable"


def test_consecutive_extra_ids_are_noted_and_not_refused() -> None:
    base = cohort()
    base.table["patient"] = base.table["patient"].replace({"404": "99998", "505": "99999"})
    split = Split(name="mine", parts={"train": ["101", "99998"], "val": ["99999"], "test": ["606"]})
    report = audit_split(base, split)
    assert report.passed
    assert "99998-99999" in report.notes[0]
    together = split.model_copy(update={"parts": {"train": ["99998", "99999"], "val": ["101"], "test": []}})
    assert audit_split(base, together).notes == []


def test_text_and_record() -> None:
    base = cohort()
    report = audit_split(planted(base.pixels[5]), CLEAN)
    lines = report.text().splitlines()
    assert len(lines) == 5
    assert lines[1].split()[:4] == ["identical", "patches", "failed", "1"]
    assert "(train)" in lines[2]
    record = report.model_dump()
    assert record["status"] == "failed"
    assert record["passed"] is False
    assert AuditReport.model_validate_json(report.model_dump_json()) == report


def test_progress_reaches_its_end() -> None:
    seen: list[tuple[int, int]] = []
    no_test = CLEAN.model_copy(update={"parts": {**CLEAN.parts, "test": []}})
    audit_split(cohort(), no_test, lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert seen == sorted(seen)


def test_real_patients_have_no_near_duplicates_and_real_copies_are_found(real_zip: Path) -> None:
    pixels, patients = [], []
    with zipfile.ZipFile(real_zip) as archive:
        for entry in sorted(archive.namelist())[::8]:
            name = parse_patch_name(entry)
            patch = np.asarray(Image.open(io.BytesIO(archive.read(entry))).convert("RGB")) if name else None
            if name and patch is not None and patch.shape == (50, 50, 3):
                pixels.append(patch)
                patients.append(name.patient)
    genuine = len(pixels)
    rng = np.random.default_rng(0)
    copied = rng.choice(genuine, 200, replace=False)
    everything = np.stack(pixels + [np.rot90(jpeg(pixels[k], 85), int(k) % 4) for k in copied])
    rows = near.thumbnails(everything, np.arange(len(everything)))
    left, right = (
        rows.of(np.arange(len(everything)) < genuine),
        rows.of(np.arange(len(everything)) >= genuine),
    )
    assert all(a == b for a, b in near.near_duplicates(everything, left, left))
    found = near.near_duplicates(everything, left, right)
    textured = set(right.rows.tolist())
    assert len(textured) > 195
    assert found == sorted((int(k), genuine + n) for n, k in enumerate(copied) if genuine + n in textured)


def test_equal_thumbnails_with_other_detail_are_no_copies() -> None:
    rng = np.random.default_rng(5)
    coarse = np.kron(rng.integers(100, 200, (10, 10, 1)), np.ones((5, 5, 3)))
    detail = rng.normal(0, 12, (2, 10, 5, 10, 5, 1))
    detail -= detail.mean(axis=(2, 4), keepdims=True)
    pixels = np.clip(coarse + detail.reshape(2, 50, 50, 1), 0, 255).astype(np.uint8)
    left, right = (near.thumbnails(pixels, np.array([row])) for row in (0, 1))
    assert (left.images * right.images).sum() > near.THUMBNAIL_COSINE
    assert near.near_duplicates(pixels, left, right) == []
