"""What workers do with a slide in the tests: `analyse_one` without pictures, which logs, is slow, or dies.

A file in the folder `log` beside the output says who began or ended which slide.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import ray

from ductal import locks
from ductal.slides import heatmap
from ductal.slides.analyse import SlideAnalyser
from ductal.slides.batch import Outcome, analyse_one

SECONDS = 0.6  # of a slow slide


def plain(analyser: SlideAnalyser, path: Path, name: str, out: Path, **settings: Any) -> Outcome:
    heatmap.draw_heatmap = lambda path, *_: path.write_bytes(b"a picture")
    _log(out, name, "begun")
    outcome = analyse_one(analyser, path, name, out, **settings)
    _log(out, name, "ended")
    return outcome


def slow(analyser: SlideAnalyser, path: Path, name: str, out: Path, **settings: Any) -> Outcome:
    _log(out, name, "taken")
    time.sleep(SECONDS)
    return plain(analyser, path, name, out, **settings)


def deadly(analyser: SlideAnalyser, path: Path, name: str, out: Path, **settings: Any) -> Outcome:
    """Whatever is called b ends the process."""
    if Path(name).stem == "b":
        _log(out, name, "taken")
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(analyser, path, name, out, **settings)


def impatient(analyser: SlideAnalyser, path: Path, name: str, out: Path, **settings: Any) -> Outcome:
    """Waits a moment for another writer."""
    locks.PATIENCE_SECONDS = 0.3
    return plain(analyser, path, name, out, **settings)


def _log(out: Path, name: str, what: str) -> None:
    folder = out.parent / "log"
    folder.mkdir(exist_ok=True)
    node = ray.get_runtime_context().get_node_id()
    (folder / f"{what} {name.replace('/', '+')} {uuid.uuid4().hex}").write_text(node)


def logged(out: Path, what: str) -> list[tuple[str, str]]:
    """(slide, node) of what was logged."""
    found = (out.parent / "log").glob(f"{what} *")
    return sorted((path.name.split()[1].replace("+", "/"), path.read_text()) for path in found)
