"""A folder of slides: bad ones are told, finished ones are not repeated; and the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from ductal.cli import app
from ductal.errors import DataError, StorageError
from ductal.locks import locked
from ductal.slides.analyse import SlideAnalyser
from ductal.slides.batch import Outcome, analyse_slides, find_slides
from ductal.slides.identity import slide_fingerprint


@pytest.fixture
def slides(square: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    (folder / "more").mkdir(parents=True)
    shutil.copy(square, folder / "a.tif")
    (folder / "b.svs").write_text("no slide")
    shutil.copy(square, folder / "more" / "c.tif")
    (folder / "notes.txt").write_text("left alone")
    (folder / ".hidden.tif").write_text("left alone")
    return folder


def test_which_files_are_slides(slides: Path) -> None:
    for name in ("1.dcm", "2.dcm", "more/3.dcm"):
        (slides / name).write_text("x")
    out = slides / "results"
    (out / "a.tif").mkdir(parents=True)
    (out / "a.tif" / "heatmap.png").write_text("a result is no slide")
    names = [name for _, name in find_slides(slides, out)]
    assert names == ["1.dcm", "a.tif", "b.svs", "more/3.dcm", "more/c.tif"]
    assert find_slides(slides / "a.tif", out) == [(slides / "a.tif", "a.tif")]
    (slides / "none").mkdir()
    for nothing in ("none", "nowhere"):
        with pytest.raises(DataError):
            find_slides(slides / nothing, out)


def test_a_bad_slide_does_not_stop_the_rest(run: Path, slides: Path, tmp_path: Path) -> None:
    told: list[Outcome] = []
    out = tmp_path / "out"
    outcomes = analyse_slides(SlideAnalyser(run), slides, out, tell=told.append)
    assert told == outcomes
    assert [outcome.name for outcome in outcomes if outcome.result] == ["a.tif", "more/c.tif"]
    assert "not a slide that can be read" in outcomes[1].problem
    assert not (out / "b.svs").exists()
    table = pd.read_csv(out / "slides.csv")
    assert table["slide"].tolist() == ["a.tif", "b.svs", "more/c.tif"]
    assert table["done"].tolist() == [True, False, True]
    assert table["tumour_area_mm2"].round(2).tolist()[::2] == [0.16, 0.16]

    shutil.rmtree(out / "more")  # as if it had been interrupted before
    again = analyse_slides(SlideAnalyser(run), slides, out)
    assert [outcome.result.reused for outcome in again if outcome.result] == [True, False]


def test_an_unreadable_slide_stops_no_batch_and_names_nobody(run: Path, square: Path, tmp_path: Path) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    (slides / "Doe" / "not a file").mkdir(parents=True)
    (slides / "Doe.mrxs").write_text("its pixels are in the folder of this name")
    shutil.copy(square, slides / "Roe.tif")
    with pytest.raises(DataError, match=r"Doe\.mrxs cannot be read \(Is a directory\)"):
        slide_fingerprint(slides / "Doe.mrxs")
    command = ["slide", str(run), str(slides), "--out", str(out), "--pseudonyms"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 3, result.output
    assert "unreadable-1: failed." in result.output
    table = (out / "slides.csv").read_text()
    assert [row.split(",")[1] for row in table.splitlines()] == ["done", "False", "True"]
    assert "Doe" not in table
    assert "Roe" not in table


def test_what_a_killed_call_left_does_not_count(run: Path, slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "a.tif").parent.mkdir()
    analyser = SlideAnalyser(run)

    class KilledError(BaseException):
        pass

    def killed(*_: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        analyser.analyse(slides / "a.tif", out / "a.tif", progress=killed)
    assert list(out.iterdir()) == []


def test_a_slide_that_another_command_writes_does_not_stop_the_rest(
    run: Path, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ductal.locks.PATIENCE_SECONDS", 0.1)
    out = tmp_path / "out"
    with locked(out / "a.tif"):
        outcomes = analyse_slides(SlideAnalyser(run), slides, out)
        alone = CliRunner().invoke(app, ["slide", str(run), str(slides / "a.tif"), "--out", str(out)])
    assert [bool(outcome.result) for outcome in outcomes] == [False, False, True]
    assert outcomes[0].busy
    assert alone.exit_code == 11  # of a single slide
    for said in (outcomes[0].problem, alone.output, str(pd.read_csv(out / "slides.csv")["problem"][0])):
        assert "is being written by another ductal command" in said


def test_a_full_disk_ends_the_batch(
    run: Path, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ductal.slides.outputs.write_grid", full)
    with pytest.raises(StorageError):
        analyse_slides(SlideAnalyser(run), slides, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_command_line(run: Path, slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    single = CliRunner().invoke(app, ["slide", str(run), str(slides / "a.tif"), "--out", str(out)])
    assert single.exit_code == 0, single.output
    assert "a.tif: IDC 0.16 mm2, 33.3% of 0.48 mm2 tissue." in single.output
    assert "note: the model's spacing is taken as 4 um" in single.output
    batch = CliRunner().invoke(app, ["slide", str(run), str(slides), "--out", str(out)])
    assert batch.exit_code == 3
    assert "a.tif: IDC 0.16 mm2, 33.3% of 0.48 mm2 tissue; computed earlier" in batch.output
    assert "b.svs: failed." in batch.output
    assert "1 of 3 slides failed" in batch.output
    assert (out / "more" / "c.tif" / "heatmap.png").is_file()


def test_one_message_for_one_bad_slide(run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9, 3), 90, np.uint8)).save(tmp_path / "a.png")
    result = CliRunner().invoke(app, ["slide", str(run), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 3
    assert result.output.count("does not say how large its pixels are") == 1
    assert "Traceback" not in result.output
