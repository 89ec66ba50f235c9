"""The command as a user meets it: whole runs, reuse, Ctrl-C, messages and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_calls import DUCTAL, ENVIRONMENT, ductal, invoke

from ductal.data.cohort import Cohort
from ductal.locks import locked

# Threads of the control models spin for each other where other programs use the cores.
ENVIRONMENT.pop("TF_CPP_MIN_LOG_LEVEL", None)  # the command itself must keep TensorFlow quiet
RECIPE = """
name = "{name}"
title = "for tests"
backbone = "VGG16"
weights = "random"
input_px = 32
[[stages]]
name = "all"
unfreeze = "all"
epochs = {epochs}
learning_rate = 0.0001
early_stopping = {{ patience = 1000 }}
"""


def write_recipe(folder: Path, name: str, epochs: int) -> str:
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(name=name, epochs=epochs))
    return str(path)


def hidden_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob(".*"))


def members(session: int) -> list[int]:
    """Living processes of a session, zombies not counted."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of_session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of_session) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def assert_all_end(session: int, within: float) -> None:
    """Every process of the session ends within so many seconds."""
    deadline = time.monotonic() + within
    while members(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members(session) == []


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic archive that trains in seconds."""
    from ductal.data.synthetic import make_synthetic

    return make_synthetic(
        tmp_path_factory.mktemp("archive") / "small.zip", patients=8, patches_per_patient=12, seed=1
    )


@pytest.fixture(scope="module")
def finished(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a whole `ductal run` of one recipe on the synthetic archive."""
    out = tmp_path_factory.mktemp("finished") / "out"
    recipe = write_recipe(out.parent, "first", 1)
    done = ductal("run", archive, "--recipes", recipe, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # TensorFlow is quiet
    assert "patches of 8 patients" in done.stdout
    assert "first: for tests" in done.stdout
    assert "epoch 1/1" in done.stdout
    assert f"Report: {out / 'report.html'}" in done.stdout
    return out


def test_run_writes_everything(finished: Path) -> None:
    run = finished / "runs" / "first"
    for name in ("model.keras", "metrics.json", "calibration.json", "history.csv", "report.html"):
        assert (run / name).is_file()
    assert json.loads((run / "run.json").read_text())["test_opened"] == 1
    assert (finished / "report.html").is_file()
    assert "first" in (finished / "leaderboard.csv").read_text()
    assert hidden_in(finished) == []


def _heed_interrupts() -> None:
    """Tests that were started in the background inherit that Ctrl-C is ignored, and would hand it on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def training(finished: Path, archive: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The same command with a second recipe, in the middle of its training."""
    recipes = f"{finished.parent / 'first.toml'},{write_recipe(tmp_path, 'endless', 1000)}"
    process = subprocess.Popen(
        [*DUCTAL, "run", str(archive), "--recipes", recipes, "--out", str(finished)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=_heed_interrupts,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "epoch 1/" in line:
            break
    assert "first: finished earlier with the same settings, kept" in "".join(lines)
    assert "prepared earlier from the same archive, kept" in "".join(lines)
    assert len(members(process.pid)) > 1
    yield process
    for left in members(process.pid):
        os.kill(left, signal.SIGKILL)
    process.communicate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the children")
@pytest.mark.parametrize("to", [os.killpg, os.kill], ids=["group", "parent only"])
def test_ctrl_c_in_training(
    to: Callable[[int, int], None], training: subprocess.Popen[str], finished: Path
) -> None:
    started = time.monotonic()
    to(training.pid, signal.SIGINT)
    _, errors = training.communicate(timeout=30)
    assert training.returncode == 130
    assert time.monotonic() - started < 15
    assert errors.strip() == "Interrupted. What was finished is kept; the same command goes on from there."
    assert_all_end(training.pid, within=2)  # Python's own resource tracker ends a moment after its parent
    assert hidden_in(finished) == []
    assert not (finished / "runs" / "endless").exists()
    assert (finished / "runs" / "first" / "metrics.json").is_file()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the children")
def test_training_does_not_outlive_a_killed_parent(training: subprocess.Popen[str], finished: Path) -> None:
    training.kill()
    training.wait()
    assert_all_end(training.pid, within=20)
    # The child cleaned up; what the killed command itself leaves is an empty claim, which the next one takes over.
    assert {Path(left).name for left in hidden_in(finished)} <= {".experiment.lock"}


def test_interrupted_evaluation_does_not_cost_the_training(finished: Path, archive: Path) -> None:
    run = finished / "runs" / "first"
    trained = (run / "model.keras").stat().st_ino
    (run / "report.html").unlink()  # what is written last: metrics.json may be there already
    done = ductal("run", archive, "--recipes", finished.parent / "first.toml", "--out", finished)
    assert done.returncode == 0, done.stderr
    assert "trained earlier, now evaluated" in done.stdout
    assert (run / "report.html").is_file()
    assert (run / "model.keras").stat().st_ino == trained


def test_predict_and_compare(
    finished: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = invoke("predict", finished / "runs" / "first", archive, "--out", tmp_path / "p.csv")
    assert code == 0, said
    assert said.startswith("96 images: ")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 97
    code, said = invoke("compare", finished, "--out", tmp_path / "compared")
    assert code == 0, said
    assert (tmp_path / "compared" / "report.html").is_file()
    before = (tmp_path / "compared" / "report.html").stat().st_ino
    monkeypatch.setattr("ductal.locks.PATIENCE_SECONDS", 0.0)
    with locked(tmp_path / "compared" / "experiment"):  # as `ductal run --out` there has it
        assert invoke("compare", finished, "--out", tmp_path / "compared")[0] == 11
        assert invoke("prior", "--no-test-set", "--out", tmp_path / "compared")[0] == 11
    assert (tmp_path / "compared" / "report.html").stat().st_ino == before


def test_ctrl_c_in_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_zip: Path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ductal.data.store._tables", interrupted)
    code, said = invoke("prepare", tiny_zip, "--out", tmp_path / "cohort")
    assert (code, said.strip()[:12]) == (130, "Interrupted.")
    assert list(tmp_path.iterdir()) == []


def test_prepare_and_export(tiny_zip: Path, tmp_path: Path) -> None:
    out, folders = tmp_path / "cohort [1]", tmp_path / "folders"
    code, said = invoke(
        "prepare", tiny_zip, "--out", out, "--patients", 3, "--limit-per-class", 2, "--as-folders", folders
    )  # fmt: skip
    assert code == 0, said
    assert " of 3 patients" in said
    assert f"Cohort: {out}\n" in said  # not wrapped, brackets not taken for markup
    assert len(list(folders.rglob("*.png"))) == Cohort.open(out).table["selected"].sum() == 12


def test_bad_run_folders(finished: Path, tmp_path: Path) -> None:
    code, said = invoke("evaluate", finished / "runs" / "majority")
    assert code == 9
    assert "is a control model" in said
    for text in ("[]", "{}", "no json"):
        (tmp_path / "run.json").write_text(text)
        assert invoke("evaluate", tmp_path)[0] == 9


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ductal.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'sklearn', 'matplotlib', 'numpy', 'httpx'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    for arguments in (["--help"], ["run", "--help"], ["prior", "--help"], ["tune", "--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_recipes_are_listed() -> None:
    done = ductal("recipes")
    assert done.returncode == 0
    for name in ("vgg16-partial", "efficientnetb3-scratch", "blocks 3-5 (10)"):
        assert name in done.stdout  # not cut, though standard output is no terminal


def test_a_split_of_ones_own_is_read_before_the_cohort(tmp_path: Path, archive: Path) -> None:
    code, said = invoke("run", archive, "--split-file", tmp_path / "none.json", "--out", tmp_path / "out")
    assert code == 3
    assert "Could not read the split" in said
    assert not (tmp_path / "out").exists()
