"""A user's mistakes end with one message and a documented exit code."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from cli_calls import invoke
from typer.testing import CliRunner

from ductal.cli import app
from ductal.data.cohort import Cohort
from ductal.errors import DuctalError


def bad_zip(path: Path, kind: str, good: Path) -> Path:
    """A copy of an archive with one thing wrong."""
    if kind == "cut":
        path.write_bytes(good.read_bytes()[:-2000])
        return path
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            if kind != "one class" or "class1" not in name:
                target.writestr(name, source.read(name))
        if kind == "leaves":
            target.writestr("../8863_idx5_x51_y51_class0.png", b"x")
        if kind == "bomb":
            target.writestr("a/8863/0/8863_idx5_x51_y51_class0.png", b"\0" * 10_000_000)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", "is not a zip or was cut short"),
        ("leaves", "points outside the archive's own folder"),
        ("bomb", "unpacks to over 200 times"),
        ("one class", "has only one class (0)"),
    ],
)
def test_bad_archives(kind: str, message: str, tiny_zip: Path, tmp_path: Path) -> None:
    code, said = invoke("run", bad_zip(tmp_path / "bad.zip", kind, tiny_zip), "--out", tmp_path / "out")
    assert code == 3
    assert said.startswith("Error: ")
    assert message in said
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_patch_that_is_no_image_is_left_out(tiny_zip: Path, tmp_path: Path) -> None:
    path = bad_zip(tmp_path / "a.zip", "none", tiny_zip)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/8863/0/8863_idx5_x51_y51_class0.png", b"no image")
    code, said = invoke("prepare", path, "--out", tmp_path / "cohort")
    assert code == 0
    assert "1 undecodable" in said
    assert "patches of 12 patients" in said


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("prepare absent.zip", 3, "absent.zip does not exist"),
        ("prepare TINY --out FILE", 3, "is not a cohort"),
        ("prepare TINY --out .", 3, "exists and is not a cohort"),
        ("prepare TINY --out /", 8, "/ is the root of the disk"),
        ("prepare TINY --out FILE/a", 8, "a file is where a folder is needed"),
        ("synthesise FILE/a.zip --patients 3 --patches-per-patient 4", 8, "a file is where a folder is needed"),
        ("run TINY --out FILE --recipes vgg16-frozen", 8, "a file is where a folder is needed"),
        ("run TINY --recipes vgg17", 4, "There is no recipe vgg17"),
        ("run TINY --recipes vgg16-frozen,vgg16-frozen", 4, "Two models would be called vgg16-frozen"),
        ("run COHORT --recipes vgg16-frozen --patients 3", 3, "prepared cohort with the selection"),
        ("run COHORT --recipes vgg16-frozen --ratios 0.5,0.4,0.3", 3, "sum to 1"),
        ("run COHORT --recipes vgg16-frozen --split kfold --fold 5", 3, "fold=5"),
        ("run COHORT --recipes vgg16-frozen --split published", 3, "None of the 162 published patients"),
        ("run TINY --ratios 1,2", 2, "three numbers"),
        ("run TINY --ratios 0.8,0.1,0.1 --split published", 2, "--ratios is not used with --split published"),
        ("run TINY --fold 1", 2, "--fold is not used with --split random"),
        ("train vgg16-frozen --split kfold --split-file a.json", 2, "--split is not used with --split-file"),
        ("run --patients 0", 2, "--patients"),
        ("train vgg16-frozen --cohort absent", 3, "absent is not a prepared cohort"),
        ("evaluate absent", 9, "absent is not a run folder"),
        ("compare absent", 9, "absent is no run folder"),
        ("predict absent TINY", 9, "absent is not a finished run"),
        ("predict absent absent.png", 3, "absent.png does not exist"),
        ("slide absent absent.svs --ray-cpus 2", 2, "--ray-cpus is of tasks on a cluster"),
        ("tune TINY --recipe vgg16-frozen --ray-cpus 2", 2, "--ray-cpus is of tasks on a cluster"),
        ("fetch --url ftp://host/a.zip", 7, "only http:// and https://"),
        ("nonsense", 2, "nonsense"),
    ],
)
def test_exit_codes(
    arguments: str, code: int, message: str,
    tiny_zip: Path, tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    places = {"TINY": str(tiny_zip), "COHORT": str(tiny_cohort.folder), "FILE": "file"}
    for name, place in places.items():
        arguments = arguments.replace(name, place)
    found, said = invoke(*arguments.split())
    assert found == code
    assert message in said
    assert "Traceback" not in said


def test_the_help_names_every_exit_code() -> None:
    epilog = str(app.info.epilog)
    kinds = [DuctalError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert len(kinds) > 10
    for kind in kinds:
        assert f" {kind.exit_code} " in epilog, kind


def test_a_mistake_of_ours_has_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise FileNotFoundError(2, "a file that the program should have written")

    monkeypatch.setattr("ductal.experiment.run_experiment", crash)
    result = CliRunner().invoke(app, ["run"])
    assert result.exit_code == 1
    assert isinstance(result.exception, FileNotFoundError)
