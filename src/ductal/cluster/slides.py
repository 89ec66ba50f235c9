"""A folder of slides on a cluster: a task each, the function and the folders of the batch on one machine."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from ductal.cluster.connect import connected
from ductal.cluster.nodes import check_nodes
from ductal.cluster.tasks import ATTEMPTS, Gone, run_tasks
from ductal.errors import ClusterError, DuctalError
from ductal.inference.encoder import ENCODER_FOLDER
from ductal.machine import THREADS
from ductal.slides.analyse import SlideAnalyser, SlideResult
from ductal.slides.batch import Bar, Outcome, analyse_one, find_slides, name_of, write_table
from ductal.slides.identity import identity_files

TABLE_SECONDS = 10.0  # between writings of slides.csv: with thousands of slides, each takes a while
Work = Callable[..., Outcome]  # `analyse_one`
_loaded: dict[str, SlideAnalyser] = {}  # in a worker: the run of the batch under way, whose network stays loaded


def analyse_slides_on(
    address: str,
    analyser: SlideAnalyser,
    source: str | Path,
    out: str | Path,
    *,
    cpus: int = 1,
    mpp: float | None = None,
    overwrite: bool = False,
    bar: Bar | None = None,
    tell: Callable[[Outcome], None] | None = None,
    note: Callable[[str], None] | None = None,
    work: Work = analyse_one,
) -> list[Outcome]:
    """`analyse_slides` with the slides spread over a Ray cluster; the files written are the same.

    A slide whose worker is lost is begun again elsewhere, up to three times. One that another writer has is tried
    again for a quarter of an hour. A slide that cannot be used is told, as on one machine, and is not repeated.

    Args:
        address: of the cluster, see `connected`.
        analyser: the run, whose folder all nodes see.
        source: a slide, or a folder, that all nodes see.
        out: the folder for all results, where all nodes write.
        cpus: processors, and threads, of a slide.
        mpp: see `analyse_slide`.
        overwrite: compute also what is there.
        bar: makes a context manager that yields a progress callback, in slides.
        tell: called with each outcome as it comes.
        note: called with what a user should know of the cluster, and with what was lost.
        work: what a worker does.

    Returns:
        The outcomes in the order of `find_slides`.

    Raises:
        ClusterError: the cluster cannot be used, see `connected` and `check_nodes`.
        DataError, RunError, StorageError: see `analyse_slides`.
    """
    source, out = Path(source), Path(out)
    found = enumerate(find_slides(source, out), start=1)
    slides = [(path, name_of(analyser, path, name, number)) for number, (path, name) in found]
    say = note or (lambda _: None)
    with connected(address) as ray:
        for text in check_nodes(ray, out.absolute(), [slides[0][0].absolute(), *_files_of(analyser)], cpus):
            say(text)
        batch = _Batch(ray, analyser, slides, out, {"mpp": mpp, "overwrite": overwrite}, cpus, work)
        with bar("Slides on the cluster") if bar else nullcontext() as progress:
            return batch.run(progress or (lambda *_: None), tell or (lambda _: None), say)


class _Batch:
    """The driver's side of a batch."""

    def __init__(
        self,
        ray: Any,
        analyser: SlideAnalyser,
        slides: list[tuple[Path, str]],
        out: Path,
        settings: dict[str, Any],
        cpus: int,
        work: Work,
    ) -> None:
        analyser.predictor  # noqa: B018 - what OpenVINO needs is made once, here, and not by all workers at once
        self._ray, self._slides, self._out = ray, slides, out
        self._task = ray.remote(_slide_task).options(num_cpus=cpus, max_retries=0)
        self._common = ray.put((uuid.uuid4().hex, analyser.unloaded(), out.absolute(), settings, cpus, work))

    def run(
        self, progress: Callable[[int, int], None], tell: Callable[[Outcome], None], note: Callable[[str], None]
    ) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        written = time.monotonic()
        tasks = run_tasks(
            self._ray, self._start, len(self._slides),
            busy=lambda result: isinstance(result, Outcome) and result.busy,
            lost=lambda number: note(f"{self._slides[number][1]}: its worker was lost, so it is begun again"),
        )  # fmt: skip
        try:
            with closing(tasks):
                for number, result in tasks:
                    outcomes[number] = self._outcome(number, result)
                    tell(outcomes[number])
                    progress(len(outcomes), len(self._slides))
                    if time.monotonic() - written >= TABLE_SECONDS:
                        write_table(self._out, _in_order(outcomes))
                        written = time.monotonic()
        finally:
            if outcomes:
                write_table(self._out, _in_order(outcomes))
        return _in_order(outcomes)

    def _start(self, number: int) -> Any:
        path, name = self._slides[number]
        return self._task.remote(self._common, path.absolute(), name)

    def _outcome(self, number: int, result: Any) -> Outcome:
        path, name = self._slides[number]
        if isinstance(result, Gone):
            problem = f"{name} was begun {ATTEMPTS} times, and each time the worker was lost: {result.reason}."
            return Outcome(path, name, None, problem)
        if isinstance(result, ClusterError) and not path.exists():
            return Outcome(path, name, None, f"{name} is no more.")
        if isinstance(result, DuctalError):
            raise result
        assert isinstance(result, Outcome)
        found = result.result
        if found is not None:  # as on one machine, with the path that the user gave
            found = SlideResult(self._out / name, found.summary, found.reused)
        return Outcome(path, name, found, result.problem, result.busy)


def _in_order(outcomes: dict[int, Outcome]) -> list[Outcome]:
    return [outcomes[number] for number in sorted(outcomes)]


def _files_of(analyser: SlideAnalyser) -> list[Path]:
    files = identity_files(analyser.folder)
    inside = [path for file in files if file.parent.name == ENCODER_FOLDER for path in file.parent.iterdir()]
    return sorted({*files, *inside})


def _slide_task(
    common: tuple[str, SlideAnalyser, Path, dict[str, Any], int, Work], path: Path, name: str
) -> Outcome | DuctalError:
    """In a worker: one slide. What would end the batch comes back as a value, for the driver to raise."""
    batch, analyser, out, settings, cpus, work = common
    if batch not in _loaded:
        os.environ[THREADS] = str(cpus)
        _loaded.clear()
        _loaded[batch] = analyser
    if not path.exists():
        return ClusterError(
            f"{path} cannot be seen from a node that joined the cluster. "
            "All nodes must see the same folders under the same paths: use a disk that they share."
        )
    try:
        return work(_loaded[batch], path, name, out, **settings)
    except DuctalError as error:
        return error
