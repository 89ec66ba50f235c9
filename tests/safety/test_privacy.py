"""What is planted in a slide's tags and label, a patient's name or a path does not come out where it should not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
import fake_runs as fake
from hostile import honest_model, save_run

from ductal.evaluation.compare import leaderboard
from ductal.evaluation.model_card import write_model_card
from ductal.evaluation.report import write_comparison_report, write_run_report
from ductal.evaluation.tables import to_markdown
from ductal.slides.analyse import SlideAnalyser
from ductal.slides.batch import analyse_slides

CANARY = "Canary4711"
LABEL = (1, 254, 3)  # no stain has this colour


def everything_in(folder: Path) -> str:
    """Names and contents of all files below `folder`, tables unpacked."""
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(path.relative_to(folder).as_posix())
        if path.suffix == ".parquet":
            parts.append(pd.read_parquet(path).to_csv())
        elif path.is_file():
            parts.append(path.read_bytes().decode("latin-1"))
    return "\n".join(parts)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """An SVS file with a patient's name in every tag, and a label and a macro image."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("openslide")
    rng = np.random.default_rng(0)
    density = rng.uniform(0.6, 1.8, (1000, 1000, 1)) * [0.5, 1.0, 0.45]
    tissue = np.clip(243 * np.exp(-density), 0, 255).astype(np.uint8)
    about = (
        f"Aperio Image Library v11.2.1\n1000x1000 [0,0 1000x1000] (256x256) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5|"
        f"Patient = {CANARY}|Filename = {CANARY}|ScanScope ID = {CANARY}|User = {CANARY}"
    )
    texts = [(tag, "s", 0, CANARY, True) for tag in (269, 271, 272, 305, 315, 316)]  # DocumentName .. HostComputer
    path = tmp_path / "scans" / "scan.svs"
    path.parent.mkdir()
    label = np.full((200, 200, 3), LABEL, np.uint8)
    with tifffile.TiffWriter(path) as file:
        common = {"photometric": "rgb", "metadata": None, "software": CANARY}
        file.write(tissue, tile=(256, 256), compression="jpeg", description=about, extratags=texts, **common)
        file.write(tissue[::4, ::4], compression="jpeg", description=about, **common)
        for kind, subfile in (("label", 1), ("macro", 9)):
            description = f"Aperio Image Library v11.2.1\n{kind} 200x200 {CANARY}"
            file.write(label, compression="lzw", description=description, subfiletype=subfile, **common)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(honest_model(), tmp_path_factory.mktemp("run") / "small")


def test_tags_label_and_macro_of_a_slide_stay_in_it(scan: Path, run: Path, tmp_path: Path) -> None:
    import openslide

    with openslide.OpenSlide(scan) as handle:  # or the test would prove nothing
        assert CANARY in str(dict(handle.properties))
        assert set(handle.associated_images) >= {"label", "macro"}
    (outcome,) = analyse_slides(SlideAnalyser(run), scan, tmp_path / "out")
    assert outcome.result is not None
    assert CANARY not in everything_in(tmp_path / "out")
    for picture in (tmp_path / "out").rglob("*.png"):
        distance = np.abs(np.asarray(Image.open(picture).convert("RGB"), int) - LABEL).sum(axis=2)
        assert distance.min() > 60


def test_names_of_slides_can_be_kept_secret(scan: Path, run: Path, tmp_path: Path) -> None:
    named = scan.rename(scan.with_name(f"{CANARY}.svs"))
    (scan.parent / f"{CANARY}-broken.svs").write_bytes(b"no slide")
    analyse_slides(SlideAnalyser(run), scan.parent, tmp_path / "named")
    assert CANARY in everything_in(tmp_path / "named")
    outcomes = analyse_slides(SlideAnalyser(run, pseudonyms=True), scan.parent, tmp_path / "secret")
    assert CANARY not in everything_in(tmp_path / "secret")
    assert [outcome.result is not None for outcome in outcomes] == [False, True]
    assert [one.reused for one in (outcomes[1].result,) if one] == [False]
    again = analyse_slides(SlideAnalyser(run, pseudonyms=True), named, tmp_path / "secret")
    assert [one.result.reused for one in again if one.result] == [True]


def test_patients_are_named_in_their_run_and_not_in_comparisons(tmp_path: Path) -> None:
    patients = (f"{CANARY}a", f"{CANARY}b", "9022", "9175", "9250", "9257")
    said = f"1 images outside the layout were ignored, such as '{CANARY}.png'."
    check = {"name": "exact copies", "what": "rule", "status": "failed", "pairs": 1, "examples": [f"{CANARY}_x1_y1"]}
    folders = [
        fake.make_run(
            tmp_path / name, name, patients=patients, cohort_folder=f"/home/{CANARY}/cohort",
            cohort=fake.cohort(notes=[said]), audit={"checks": [check], "notes": [f"1 runs of ids ({CANARY}1-2)"]},
        )
        for name in ("vgg16-full", "vgg16-frozen")
    ]  # fmt: skip
    out = tmp_path / "compared"
    report = write_comparison_report(out, folders, "two").read_text(encoding="utf-8")
    assert "exact copies" in report  # the audit itself is there, only nobody is named
    rows = leaderboard(folders)
    rows.to_csv(out / "leaderboard.csv")
    (out / "leaderboard.md").write_text(to_markdown(rows))
    assert CANARY not in everything_in(out)
    alone = write_run_report(folders[0]).read_text(encoding="utf-8")
    assert all(words in alone for words in (f"{CANARY}.png", f"{CANARY}_x1_y1", f"{CANARY}1-2"))


def test_the_path_of_the_data_is_in_no_report(tmp_path: Path) -> None:
    folder = fake.make_run(tmp_path / "run", cohort_folder=f"/home/{CANARY}/cohort")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.5, "temperature": 1.0}))
    write_run_report(folder)
    write_model_card(folder)
    assert CANARY in (folder / "run.json").read_text()
    for name in ("report.html", "MODEL_CARD.md"):
        assert CANARY not in (folder / name).read_text(encoding="utf-8")


def test_an_export_names_no_patient_and_no_path(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from ductal.export.export import export_run

    record = {"name": "small", "cohort": {"name": "c"}, "cohort_folder": f"/home/{CANARY}", "split": {"name": "own"}}
    (run / "run.json").write_text(json.dumps(record))
    split = {"name": "own", "parts": {"train": [f"{CANARY}a"], "val": [f"{CANARY}b"]}}
    (run / "split.json").write_text(json.dumps(split))
    export_run(run, "openvino", tmp_path / "export")
    assert (tmp_path / "export" / "ductal.json").is_file()
    assert CANARY not in everything_in(tmp_path / "export")


def test_names_from_a_run_are_text_in_its_report(tmp_path: Path) -> None:
    """A report is opened in a browser: what a stranger wrote into a run must not be a script there."""
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    folder = fake.make_run(tmp_path / "run", cohort=fake.cohort(name=attack, notes=[attack]), weights=attack)
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.5, "temperature": 1.0, "note": attack}))
    page = write_run_report(folder).read_text(encoding="utf-8")
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
