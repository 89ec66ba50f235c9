"""Preparing: what is kept, what is quarantined, that it is deterministic, and whole or absent."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_archives import encoded, good_files, name_of, noise, zipped

from ductal.data import quality, store
from ductal.data.cohort import Cohort
from ductal.data.store import prepare
from ductal.errors import DataError, StorageError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return zipped(tmp_path / "small.zip", good_files())


def test_rows_pixels_and_table_belong_together(tmp_path: Path) -> None:
    files = good_files(2, 3)
    cohort = prepare(zipped(tmp_path / "s.zip", dict(reversed(files.items()))), tmp_path / "c", workers=1)
    assert len(cohort) == 12
    assert cohort.pixels.dtype == np.uint8
    assert not cohort.pixels.flags.writeable
    order = cohort.table[["patient", "y", "x"]].apply(tuple, axis=1).tolist()
    assert order == sorted(order)
    for row, (patient, x, y, label) in enumerate(cohort.table[["patient", "x", "y", "label"]].to_numpy()):
        expected = np.asarray(Image.open(io.BytesIO(files[name_of(patient, x, y, label)])))
        np.testing.assert_array_equal(cohort.pixels[row], expected)
    assert cohort.table.dtypes[["x", "y", "label"]].tolist() == [np.int32, np.int32, np.int8]
    assert cohort.info.n_positive == cohort.labels.sum() == 6
    assert cohort.groups.tolist() == cohort.table["patient"].tolist()
    assert cohort.info.quarantined == {}
    assert cohort.table["selected"].all()


def test_the_result_does_not_depend_on_workers_or_on_the_container(tmp_path: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "unpacked")
    options = {"limit_per_class": 2, "patients": 3, "seed": 5}
    one = prepare(archive, tmp_path / "one", workers=1, **options)
    two = prepare(archive, tmp_path / "two", workers=2, **options)
    folder = prepare(tmp_path / "unpacked", tmp_path / "three", workers=1, **options)
    for name in ("patches.npy", "patches.parquet", "quarantine.parquet"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
        assert (one.folder / name).read_bytes() == (folder.folder / name).read_bytes()
    assert one.info.fingerprint == two.info.fingerprint == folder.info.fingerprint
    assert (one.info.source_kind, folder.info.source_kind) == ("zip", "folder")


def test_unusable_files_are_quarantined_with_reason(tmp_path: Path) -> None:
    bad = {
        ("undecodable", 1): b"GIF89a not an image at all",
        ("undecodable", 2): encoded(noise(1))[:-2000],
        ("undecodable", 3): b"",
        ("undecodable", 4): encoded(noise(2)[..., 0].astype(np.uint16) * 257),
        ("undecodable", 5): encoded(noise(3), "BMP"),
        ("size", 6): encoded(noise(4, (50, 42))),
        ("size", 7): encoded(noise(5, (3, 50))),
        ("blank", 8): encoded(np.full((50, 50, 3), 240, np.uint8)),
    }
    files = good_files(1)
    files |= {name_of("7000", 1 + 50 * i, 1, 0): content for (_, i), content in bad.items()}
    cohort = prepare(zipped(tmp_path / "s.zip", files), tmp_path / "c", workers=1)
    assert len(cohort) == 6
    assert cohort.info.quarantined == {"blank": 1, "size": 2, "undecodable": 5}
    assert cohort.quarantine["reason"].tolist() == [reason for reason, _ in bad]
    assert cohort.quarantine["detail"][5] == "50 x 42 px"
    assert set(cohort.quarantine["reason"]) == set(quality.RULES)
    assert (cohort.quarantine["patient"] == "7000").all()


def test_one_damaged_entry_does_not_stop_the_others(tmp_path: Path, archive: Path) -> None:
    raw = bytearray(archive.read_bytes())
    raw[300] ^= 0xFF
    archive.write_bytes(raw)
    cohort = prepare(archive, tmp_path / "c", workers=1)
    assert cohort.info.quarantined == {"undecodable": 1}
    assert "CRC" in cohort.quarantine["detail"][0]
    assert len(cohort) == 23


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(noise(1)[..., 0]), np.repeat(noise(1)[..., :1], 3, axis=2)),
        (Image.fromarray(np.dstack([noise(1), np.zeros((50, 50), np.uint8)])), None),
        (
            Image.fromarray(np.dstack([noise(1), np.full((50, 50), 255, np.uint8)])),
            noise(1),
        ),
        (Image.fromarray(noise(1) // 128 * 255).quantize(8), noise(1) // 128 * 255),
    ],
    ids=["grey", "transparent", "opaque", "palette"],
)
def test_colour_modes_become_rgb_by_the_stated_rule(image: Image.Image, expected: np.ndarray | None) -> None:
    pixels, reason, _ = quality.inspect(encoded(image))
    if expected is None:  # wholly transparent: white, hence blank
        assert reason == "blank"
    else:
        np.testing.assert_array_equal(pixels, expected)


def test_only_content_decides_the_format_and_faint_tissue_stays() -> None:
    faint = np.clip(np.random.default_rng(0).normal(235, 3, (50, 50, 3)), 0, 255).astype(np.uint8)
    for form in ("PNG", "TIFF"):
        pixels, reason, _ = quality.inspect(encoded(faint, form))
        assert reason == ""
        np.testing.assert_array_equal(pixels, faint)
    assert quality.inspect(encoded(noise(1), "JPEG"))[0].shape == (50, 50, 3)


def test_patients_are_drawn_by_seed_and_limits_only_mark(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "s.zip", good_files(6, 4))
    cohort = prepare(archive, tmp_path / "a", patients=3, limit_per_class=2, seed=1, workers=1)
    assert cohort.info.n_patients == 3
    assert len(cohort) == 24
    counts = cohort.table[cohort.table["selected"]].groupby(["patient", "label"]).size()
    assert counts.tolist() == [2] * 6
    assert cohort.info.selection == {"patients": 3, "limit_per_class": 2, "seed": 1}
    draws = {
        tuple(sorted(set(prepare(archive, tmp_path / "b", patients=3, seed=seed, workers=1).groups)))
        for seed in range(5)
    }
    assert len(draws) > 1
    everyone = prepare(archive, tmp_path / "d", limit_per_class=2, seed=1, workers=1)
    alike = everyone.table[everyone.table["patient"].isin(cohort.groups)]
    assert alike["selected"].tolist() == cohort.table["selected"].tolist()


def test_more_patients_than_there_are_keeps_all_and_says_so(tmp_path: Path, archive: Path) -> None:
    cohort = prepare(archive, tmp_path / "c", patients=250, workers=1)
    assert cohort.info.n_patients == 4
    assert any("250 patients were asked for; the source has 4" in note for note in cohort.info.notes)


def test_without_patients_groups_are_contents(tmp_path: Path) -> None:
    files = {"cancer/a.png": encoded(noise(1)), "not_cancer/a.png": encoded(noise(2))}
    files["not_cancer/b.png"] = files["not_cancer/a.png"]
    archive = zipped(tmp_path / "s.zip", files)
    cohort = prepare(archive, tmp_path / "c", workers=1)
    assert not cohort.info.has_patients
    assert cohort.info.n_patients == 0
    assert cohort.table["patch_id"].tolist() == ["cancer/a", "not_cancer/a", "not_cancer/b"]
    assert cohort.groups[1] == cohort.groups[2] != cohort.groups[0]
    with pytest.raises(DataError, match="no patient ids"):
        prepare(archive, tmp_path / "d", patients=1)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({name_of("1", 1, 1, 0): encoded(noise(1))}, "only one class"),
        ({name_of("1", 1, 1, 0): encoded(noise(1)), name_of("1", 51, 1, 1): b"?"}, "only one class"),
        ({name_of("1", 1, 1, 0): b"?", name_of("1", 51, 1, 1): b"?"}, "None of the 2 patches"),
        ({"p/0/a.png": encoded(noise(1)), "p/0/a.jpg": encoded(noise(2)), "p/1/a.png": b""}, "one patch id"),
    ],
)
def test_sources_that_cannot_make_a_cohort(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(zipped(tmp_path / "s.zip", files), tmp_path / "c", workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zip"]


@pytest.mark.parametrize("option", ["patients", "limit_per_class", "workers"])
def test_counts_below_one_are_refused(tmp_path: Path, archive: Path, option: str) -> None:
    with pytest.raises(DataError, match=f"{option} must be at least 1"):
        prepare(archive, tmp_path / "c", **{option: 0})


def test_only_a_cohort_is_replaced(tmp_path: Path, archive: Path) -> None:
    first = prepare(archive, tmp_path / "c", workers=1)
    again = prepare(archive, tmp_path / "c", patients=2, workers=1)
    assert (len(first), len(Cohort.open(tmp_path / "c"))) == (24, len(again))
    with pytest.raises(DataError, match="already a prepared cohort"):
        prepare(tmp_path / "c", tmp_path / "d")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    for target in (tmp_path / "thesis", archive):
        with pytest.raises(DataError):
            prepare(archive, target)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"
    shutil.copy(archive, tmp_path / "c" / "inside.zip")
    with pytest.raises(DataError, match="would be replaced"):
        prepare(tmp_path / "c" / "inside.zip", tmp_path / "c")


def test_a_full_disk_is_seen_before_the_work(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage(10, 10, 2**20))
    with pytest.raises(StorageError, match="MB are free"):
        prepare(archive, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_disk_that_fills_up_leaves_the_old_cohort_whole(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(archive, tmp_path / "c", workers=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_append", full)
    with pytest.raises(StorageError, match="No space left"):
        prepare(archive, tmp_path / "c", patients=2, workers=1)
    assert len(Cohort.open(tmp_path / "c")) == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "small.zip"]


@pytest.mark.parametrize("workers", [1, 2])
def test_interruption_leaves_nothing_behind(tmp_path: Path, workers: int) -> None:
    archive = zipped(tmp_path / "s.zip", good_files(100, 3))

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        prepare(archive, tmp_path / "c", workers=workers, progress=interrupt)
    assert time.monotonic() - started < 10
    assert [path.name for path in tmp_path.iterdir()] == ["s.zip"]


def test_a_dead_worker_is_an_error_and_not_a_hang(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.ordered_map
    monkeypatch.setattr(store, "ordered_map", lambda _, jobs, n: real(os._exit, (9 for _ in jobs), n))
    with pytest.raises(DataError, match="worker process ended"):
        prepare(archive, tmp_path / "c", workers=2)
    assert not (tmp_path / "c").exists()


def test_a_script_without_a_main_guard_works(tmp_path: Path, archive: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from ductal.data.store import prepare\n"
        f"print(len(prepare({str(archive)!r}, {str(tmp_path / 'c')!r}, workers=2)))\n"
    )
    source = Path(store.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["24"]
    assert done.stderr == ""


def test_progress_counts_every_file_once(tmp_path: Path, archive: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(archive, tmp_path / "c", workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (24, 24)


def test_the_real_sample(real_zip: Path, tmp_path: Path) -> None:
    cohort = prepare(real_zip, tmp_path / "c", patients=8, seed=3, workers=1)
    assert cohort.info.n_patients == 8
    assert set(cohort.info.quarantined) <= {"size"}  # no real patch is blank or broken
    assert not cohort.info.synthetic
    assert cohort.info.notes == []
    xy = cohort.table[["x", "y"]].to_numpy()
    assert (xy % 50 == 1).all()
    stains = cohort.pixels.mean(axis=(0, 1, 2))
    assert stains[0] > stains[1] < stains[2]  # RGB order: H&E is pink and purple, lowest in green
