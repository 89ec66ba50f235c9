"""The synthetic cohort: genuine layout, same bytes for the same seed, tissue that colour does not solve."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ductal.data.naming import parse_patch_name
from ductal.data.quality import inspect
from ductal.data.sources import open_source
from ductal.data.synthetic import FOLDER, make_synthetic
from ductal.errors import DataError

PATIENTS, PATCHES = 24, 40


class Drawn(NamedTuple):
    path: Path
    files: dict[str, bytes]
    pixels: np.ndarray  # whole patches only
    label: np.ndarray
    patient: np.ndarray
    at: np.ndarray  # (n, 2): x, y


def read(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    path = tmp_path_factory.mktemp("drawn") / "cohort.zip"
    make_synthetic(path, patients=PATIENTS, patches_per_patient=PATCHES, seed=3, workers=1)
    files = read(path)
    names = [parse_patch_name(name) for name in files if name.endswith(".png")]
    kept = [
        (np.asarray(image), name)
        for content, name in zip(list(files.values())[1:], names, strict=True)
        if (image := Image.open(io.BytesIO(content))).size == (50, 50)
    ]
    return Drawn(
        path,
        files,
        np.stack([pixels for pixels, _ in kept]),
        np.array([name.label for _, name in kept]),
        np.array([name.patient for _, name in kept]),
        np.array([(name.x, name.y) for _, name in kept]),
    )


def test_layout_and_names_are_those_of_the_archive(drawn: Drawn) -> None:
    names = list(drawn.files)
    assert names[0] == f"{FOLDER}/SYNTHETIC.txt"
    assert b"never be reported as results" in drawn.files[names[0]]
    assert len(names) == len(set(names)) == 1 + PATIENTS * PATCHES
    for name in names[1:]:
        folder, patient, label, file = name.split("/")
        parsed = parse_patch_name(file)
        assert parsed is not None
        assert (folder, patient, label) == (FOLDER, parsed.patient, str(parsed.label))
        assert parsed.x % 50 == parsed.y % 50 == 1
    assert sorted(set(drawn.patient)) == [str(90001 + i) for i in range(PATIENTS)]


def test_open_source_knows_it_is_synthetic(drawn: Drawn) -> None:
    source = open_source(drawn.path)
    assert source.synthetic
    assert source.has_patients
    assert len(source.entries) == PATIENTS * PATCHES


def test_ids_are_not_published_ones() -> None:
    import ductal.data

    published = Path(ductal.data.__path__[0]) / "published"
    ids = {int(line) for file in published.glob("*.txt") for line in file.read_text().split()}
    assert len(ids) == 162
    assert max(ids) < 90001


def test_some_patches_are_small_and_none_is_unusable_otherwise(drawn: Drawn) -> None:
    reasons = [inspect(content)[1] for name, content in drawn.files.items() if name.endswith(".png")]
    assert set(reasons) == {"", "size"}
    assert 0.005 < reasons.count("size") / len(reasons) < 0.015


def test_same_seed_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    def build(name: str, **options: int) -> bytes:
        return make_synthetic(tmp_path / name, patients=3, patches_per_patient=8, **options).read_bytes()

    reference = build("a.zip", seed=5, workers=1)
    assert build("b.zip", seed=5, workers=2) == reference
    assert build("c.zip", seed=6, workers=1) != reference


def test_folder_holds_the_files_of_the_zip(tmp_path: Path) -> None:
    archive = make_synthetic(tmp_path / "a.zip", patients=2, patches_per_patient=6)
    for _ in range(2):  # the second time replaces the first
        folder = make_synthetic(tmp_path / "a", patients=2, patches_per_patient=6)
    written = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert written == read(archive)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.zip"]


def test_prevalence_and_both_classes(drawn: Drawn) -> None:
    assert 0.22 < drawn.label.mean() < 0.36
    shares = np.array([drawn.label[drawn.patient == p].mean() for p in np.unique(drawn.patient)])
    assert ((shares > 0) & (shares < 1)).mean() > 0.9
    assert shares.min() < 0.15
    assert shares.max() > 0.45


def pairs(drawn: Drawn, dx: int, dy: int) -> list[tuple[int, int]]:
    place = {(p, x, y): i for i, (p, (x, y)) in enumerate(zip(drawn.patient, drawn.at.tolist(), strict=True))}
    return [(i, place[p, x + dx, y + dy]) for (p, x, y), i in place.items() if (p, x + dx, y + dy) in place]


@pytest.mark.parametrize(("dx", "dy"), [(50, 0), (0, 50)])
def test_neighbours_continue_each_other(drawn: Drawn, dx: int, dy: int) -> None:
    first, second = np.array(pairs(drawn, dx, dy)).T
    pixels = drawn.pixels.astype(float)
    if dx:
        leaving, entering = pixels[first, :, -1], pixels[second, :, 0]
    else:
        leaving, entering = pixels[first, -1], pixels[second, 0]
    # Strangers of the same patient, so that the patient's stain does not decide.
    stranger = np.arange(len(first))
    rng = np.random.default_rng(0)
    for patient in np.unique(drawn.patient):
        own = np.flatnonzero(drawn.patient[first] == patient)
        stranger[own] = rng.permutation(own)
    seam = np.abs(leaving - entering).mean()
    assert seam < 0.5 * np.abs(leaving - entering[stranger]).mean()


def test_tumour_is_contiguous(drawn: Drawn) -> None:
    first, second = np.array(pairs(drawn, 50, 0) + pairs(drawn, 0, 50)).T
    shares = np.array([drawn.label[drawn.patient == p].mean() for p in drawn.patient])
    agree = (drawn.label[first] == drawn.label[second]).mean()
    by_chance = (shares**2 + (1 - shares) ** 2).mean()
    assert agree > by_chance + 0.1


def texture(pixels: np.ndarray) -> np.ndarray:
    """Spread and percentiles of the Laplacian of the optical density at four scales, as (n, features)."""
    density = -np.log((pixels.astype(np.float32) + 1) / 256)
    features = []
    for channel in (density[..., 0], density[..., 1] - density[..., 0]):
        for scale in (0.6, 1.0, 1.6, 2.6):
            response = ndimage.gaussian_laplace(channel, (0, scale, scale)).reshape(len(pixels), -1)
            features += [response.std(axis=1), *np.percentile(response, (2, 10, 25, 75, 90, 98), axis=1)]
    return np.stack(features, axis=1)


def patientwise_auc(drawn: Drawn, features: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    folds = GroupKFold(6)
    probs = cross_val_predict(
        model, features, drawn.label, groups=drawn.patient, cv=folds, method="predict_proba"
    )
    return float(roc_auc_score(drawn.label, probs[:, 1]))


def test_colour_alone_does_not_solve_it_and_texture_does_better(drawn: Drawn) -> None:
    colour = patientwise_auc(drawn, drawn.pixels.mean(axis=(1, 2)))
    assert 0.6 < colour < 0.88
    structure = patientwise_auc(drawn, texture(drawn.pixels))
    assert structure > colour + 0.05
    assert 0.85 < structure < 0.995


def test_progress_counts_patches(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    make_synthetic(
        tmp_path / "a.zip",
        patients=3,
        patches_per_patient=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(4, 12), (8, 12), (12, 12)]


@pytest.mark.parametrize(
    "wrong",
    [{"patients": 0}, {"patients": 10_000}, {"patches_per_patient": 3}, {"seed": -1}, {"workers": 0}],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(DataError, match=f"{name}={value}"):
        make_synthetic(tmp_path / "a.zip", **wrong)
    assert not list(tmp_path.iterdir())


def _folder_of_somebody(path: Path) -> Path:
    path.mkdir()
    (path / "thesis.txt").write_text("precious")
    return path


def _file_of_somebody(path: Path) -> Path:
    path.write_text("precious")
    return path


def _folder_named_zip(path: Path) -> Path:
    archive = path.with_suffix(".zip")
    archive.mkdir()
    return archive


@pytest.mark.parametrize("make", [_folder_of_somebody, _file_of_somebody, _folder_named_zip])
def test_what_is_not_a_synthetic_cohort_is_not_replaced(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    out = make(tmp_path / "mine")
    before = [(p, p.read_text()) for p in sorted(tmp_path.rglob("*")) if p.is_file()]
    with pytest.raises(DataError, match="mine"):
        make_synthetic(out, patients=1, patches_per_patient=4)
    assert [(p, p.read_text()) for p in sorted(tmp_path.rglob("*")) if p.is_file()] == before


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    for out in (tmp_path / "a.zip", tmp_path / "a"):
        with pytest.raises(KeyboardInterrupt):
            make_synthetic(out, patients=2, patches_per_patient=4, progress=stop)
    assert not list(tmp_path.iterdir())
