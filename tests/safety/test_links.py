"""Run folders and cohorts in which a file is a link to somewhere else, a pipe or a device."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ductal.cli import app
from ductal.data.cohort import FILES, Cohort
from ductal.data.splitting import make_split
from ductal.errors import DataError, RunError
from ductal.evaluation.ensemble import combine
from ductal.evaluation.evaluate import evaluate
from ductal.evaluation.runs import load_run
from ductal.inference.predictor import Predictor
from ductal.loading.links import refuse_links
from ductal.loading.records import read_json

LINKS = [  # in the run, and what it stands for
    ("model.keras", "precious"), ("run.json", "precious"), ("predictions/val.parquet", "precious"),
    ("predictions/val.parquet", "not there yet"), ("figures", ""), ("openvino", ""), ("members/0", ""),
    ("deep/er/link", "precious"),
]  # fmt: skip


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    return folder


def replace(path: Path, make: Callable[[Path], None]) -> None:
    """Something else in place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)


@pytest.mark.parametrize(("place", "target"), LINKS)
def test_a_link_in_a_run_is_refused_by_all_who_read_or_write_there(
    place: str, target: str, run: Path, outside: Path, tiny_cohort: Cohort
) -> None:
    replace(run / place, lambda path: path.symlink_to(outside / target))
    split = make_split(tiny_cohort, "random", seed=1)
    for use in (
        lambda: Predictor.from_run(run),
        lambda: load_run(run),
        lambda: evaluate(run, tiny_cohort, split),
        lambda: combine([run, run], tiny_cohort, run.parent / "ensemble"),
    ):
        with pytest.raises(RunError, match=f"{place} is a symbolic link, pipe or device"):
            use()
    for command in ("evaluate", "compare", "context", "export --to onnx", "slide"):
        name, *more = command.split()
        inputs = [str(outside)] if name == "slide" else []
        refused = CliRunner().invoke(app, [name, str(run), *inputs, *more, *(
            ["--out", str(run.parent / "out")] if name in ("compare", "export", "slide") else []
        )])  # fmt: skip
        assert refused.exit_code == 9, refused.output
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "mine"


def test_a_pipe_or_device_does_not_hold_the_reader(run: Path) -> None:
    replace(run / "run.json", os.mkfifo)
    with pytest.raises(RunError, match="symbolic link, pipe or device"):
        load_run(run)
    with pytest.raises(ValueError, match=r"run\.json is no file"):
        read_json(run / "run.json")


@pytest.mark.parametrize("depth", [1500, 3000])  # more than Python calls itself; more than a path can name
def test_a_link_is_not_hidden_by_depth(
    depth: int, run: Path, outside: Path, request: pytest.FixtureRequest
) -> None:
    place = os.open(run, os.O_RDONLY)
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", run / "a"], check=True))  # pytest could not
    for _ in range(depth):  # by handles, as no path is that long
        os.mkdir("a", dir_fd=place)
        place, above = os.open("a", os.O_RDONLY, dir_fd=place), place
        os.close(above)
    os.symlink(outside / "precious", "link", dir_fd=place)
    os.close(place)
    with pytest.raises(RunError, match="is a symbolic link" if depth < 2000 else "cannot be looked into"):
        refuse_links(run)


def test_a_folder_that_cannot_be_listed_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(folder: Path) -> object:
        if folder.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    (run / "closed").mkdir()
    monkeypatch.setattr("ductal.loading.links.os.scandir", guarded)  # root may list all
    with pytest.raises(RunError, match=r"closed cannot be looked into \(Permission denied\)"):
        refuse_links(run)
    refuse_links(run / "absent")


def test_a_run_folder_may_be_a_link_itself(run: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(run)
    assert Predictor.from_run(tmp_path / "named", engine="tensorflow").threshold == 0.4


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_a_cohort_is_refused(name: str, tiny_cohort: Cohort, tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    shutil.copytree(tiny_cohort.folder, folder)
    replace(folder / name, lambda path: path.symlink_to(tiny_cohort.folder / name))
    with pytest.raises(DataError, match=f"{name} is a symbolic link, pipe or device"):
        Cohort.open(folder)
    (tmp_path / "named").symlink_to(tiny_cohort.folder)
    assert Cohort.open(tmp_path / "named").info == tiny_cohort.info
