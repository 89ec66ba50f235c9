"""A folder of slides on two nodes: the files of one machine, whichever node is killed meanwhile."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import slide_work
from slide_files import make_known_run, make_square_pixels, save_square
from slide_work import logged
from typer.testing import CliRunner

from ductal.cli import app
from ductal.cluster.slides import analyse_slides_on
from ductal.cluster.tasks import ATTEMPTS
from ductal.errors import StorageError
from ductal.locks import locked
from ductal.slides.analyse import SlideAnalyser
from ductal.slides.batch import Outcome, analyse_slides


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_known_run(tmp_path_factory.mktemp("runs") / "dark-is-tumour")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight slides, of which one is none."""
    folder = tmp_path_factory.mktemp("slides")
    (folder / "more").mkdir()
    square = save_square(folder / "a.tif", make_square_pixels())
    for name in ("c", "d", "e", "more/f", "more/g", "more/h"):
        shutil.copy(square, folder / f"{name}.tif")
    (folder / "b.svs").write_text("no slide")
    return folder


@pytest.fixture(scope="module")
def local(run: Path, slides: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    """The results of one machine."""
    out = tmp_path_factory.mktemp("local") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ductal.slides.heatmap.draw_heatmap", lambda path, *_: path.write_bytes(b"a picture"))
        return out, analyse_slides(SlideAnalyser(run), slides, out)


def contents(folder: Path, leave_out: str = "") -> dict[str, bytes]:
    """All files by their names, hidden ones too."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if Path(name).name != leave_out}


def told(outcomes: list[Outcome]) -> list[tuple[str, str, Any]]:
    return [(each.name, each.problem, each.result and each.result.summary) for each in outcomes]


def test_same_files_as_on_one_machine(
    two_nodes: Any, run: Path, slides: Path, local: tuple[Path, list[Outcome]], tmp_path: Path
) -> None:
    out, seen, counts = tmp_path / "out", [], []
    analyser = SlideAnalyser(run)
    on = two_nodes.address, analyser, slides, out
    outcomes = analyse_slides_on(*on, tell=seen.append, work=slide_work.slow, bar=lambda _: _Counts(counts))
    assert contents(out) == contents(local[0])
    assert told(outcomes) == told(local[1])
    assert sorted(seen, key=lambda each: each.name) == sorted(outcomes, key=lambda each: each.name)
    assert counts == [(number, 8) for number in range(1, 9)]
    assert len({node for _, node in logged(out, "ended")}) == 2
    assert outcomes[0].result is not None
    assert outcomes[0].result.folder == out / "a.tif"

    shutil.rmtree(out / "more")  # as if it had been interrupted before
    again = analyse_slides_on(*on, work=slide_work.plain)
    assert [each.result.reused for each in again if each.result] == [True] * 4 + [False] * 3
    assert contents(out) == contents(local[0])


class _Counts:
    """In place of a bar."""

    def __init__(self, counts: list[tuple[int, int]]) -> None:
        self._counts = counts

    def __enter__(self) -> Any:
        return lambda *count: self._counts.append(count)

    def __exit__(self, *_: object) -> None:
        pass


def test_a_killed_node_costs_only_its_slide(
    two_nodes: Any, run: Path, slides: Path, local: tuple[Path, list[Outcome]], tmp_path: Path
) -> None:
    """Its node is killed while it works on a slide: that one is begun again elsewhere; nothing else is repeated."""
    out, notes, killed = tmp_path / "out", [], []
    victim, over = next(iter(two_nodes.worker_nodes)), threading.Event()

    def kill() -> None:
        while not killed and not over.is_set():
            ended = logged(out, "begun")
            busy = [name for name, node in logged(out, "taken") if node == victim.node_id]
            if len(ended) >= 3 and len(busy) > sum(node == victim.node_id for _, node in ended):
                two_nodes.remove_node(victim, allow_graceful=False)
                killed.extend(set(busy) - {name for name, _ in logged(out, "begun")})
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        on = two_nodes.address, SlideAnalyser(run), slides, out
        outcomes = analyse_slides_on(*on, work=slide_work.slow, note=notes.append)
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1
    assert notes == [f"{killed[0]}: its worker was lost, so it is begun again"]
    names = sorted(outcome.name for outcome in outcomes)
    assert [name for name, _ in logged(out, "ended")] == names  # nothing lost, nothing twice
    assert [name for name, _ in logged(out, "taken")] == sorted([*names, *killed])
    assert told(outcomes) == told(local[1])
    assert contents(out) == contents(local[0])


def test_a_slide_that_ends_its_worker_does_not_stop_the_rest(
    two_nodes: Any, run: Path, slides: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcomes = analyse_slides_on(two_nodes.address, SlideAnalyser(run), slides, out, work=slide_work.deadly)
    assert [outcome.name for outcome in outcomes if outcome.result is None] == ["b.svs"]
    assert f"b.svs was begun {ATTEMPTS} times, and each time the worker was lost" in outcomes[1].problem
    assert len(logged(out, "taken")) == ATTEMPTS
    assert len(logged(out, "ended")) == 7


def test_another_writer_is_waited_for(
    two_nodes: Any, run: Path, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker meets it whose slide is being written by one that Ray took for lost; however often it looks."""
    monkeypatch.setattr("ductal.cluster.tasks.PAUSE_SECONDS", 0.1)
    out, outcomes = tmp_path / "out", []

    def analyse() -> None:
        analyser, slide = SlideAnalyser(run), slides / "a.tif"
        outcomes.extend(analyse_slides_on(two_nodes.address, analyser, slide, out, work=slide_work.impatient))

    waiting = threading.Thread(target=analyse)
    with locked(out / "a.tif"):
        waiting.start()
        while len(logged(out, "begun")) < ATTEMPTS + 1:
            assert waiting.is_alive()
            time.sleep(0.05)
    waiting.join()
    assert [bool(outcome.result) for outcome in outcomes] == [True]


def test_a_slide_that_another_keeps_writing_does_not_stop_the_rest(
    two_nodes: Any, run: Path, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ductal.cluster.tasks.BUSY_SECONDS", 0.0)
    out = tmp_path / "out"
    with locked(out / "c.tif"):
        outcomes = analyse_slides_on(two_nodes.address, SlideAnalyser(run), slides, out, work=slide_work.impatient)
    assert [outcome.name for outcome in outcomes if outcome.result is None] == ["b.svs", "c.tif"]
    assert (outcomes[2].busy, "is being written by another ductal command" in outcomes[2].problem) == (True, True)


def test_a_refusing_disk_ends_the_batch(two_nodes: Any, run: Path, slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "more").write_text("a file where a folder is needed")
    with pytest.raises(StorageError, match="more"):
        analyse_slides_on(two_nodes.address, SlideAnalyser(run), slides, out, work=slide_work.plain)
    assert not list(out.rglob(".*"))


def test_ctrl_c_on_the_command_line(two_nodes: Any, run: Path, slides: Path, tmp_path: Path) -> None:
    """What was finished stays, nothing half-written does, and the same command goes on."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ductal", "slide", run, slides, "--out", out, "--ray", two_nodes.address]

    def heed() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "IDC 0.16 mm2" in line:
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    finished = len(list(out.rglob("summary.json")))
    assert 1 <= finished < 7
    assert not list(out.rglob(".*"))
    done = CliRunner().invoke(app, list(map(str, command[3:])))
    assert done.exit_code == 3, done.output
    assert done.output.count("computed earlier") == finished
    assert "b.svs: failed." in done.output
    assert "1 of 8 slides failed" in done.output
    assert len(list(out.rglob("heatmap.png"))) == 7
