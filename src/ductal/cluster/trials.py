"""Trials of a study on a cluster: drawn, judged and written down by the driver, trained by a task each.

Only the driver writes the study's database. A worker tells each epoch's figure through a mailbox and goes on when the
driver has answered, so that a trial is pruned at the epoch at which one machine would have pruned it.
"""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ductal.cluster.connect import connected
from ductal.cluster.mailbox import open_mailbox
from ductal.cluster.nodes import PACKAGES, check_nodes, places_of
from ductal.cluster.tasks import Gone, cancel, outcome_of
from ductal.console import say
from ductal.data.cohort import INFO, PIXELS, TABLE, Cohort
from ductal.errors import DuctalError
from ductal.loading.onnx_file import onnx_files
from ductal.machine import THREADS
from ductal.training.recipe import Recipe
from ductal.tune.findings import Findings
from ductal.tune.patients import Patients
from ductal.tune.search import tune
from ductal.tune.storage import storage_url, window_of
from ductal.tune.study import Study, Tuning
from ductal.tune.trial import Bench, LostTrialError, Report, RunTrial, run_trial

_GLANCE_SECONDS = 0.5  # between looks whether to stop
_SECONDS_TO_END = 60.0  # of a training that was told to


def tune_on(
    address: str,
    tuning: Tuning,
    console: Console | None = None,
    *,
    cpus: int = 1,
    run: RunTrial = run_trial,
) -> Findings:
    """`ductal.tune.search.tune` with the trials on a Ray cluster, `tuning.at_once` of them at once.

    Args:
        address: of the cluster, see `connected`.
        tuning: what to do; its folder and the cohort are seen by all nodes. Without `at_once`, a new study has
            as many as there is room for now.
        console: where it is told.
        cpus: processors, and threads, of a trial.
        run: what a trial is.

    Raises:
        ClusterError: the cluster cannot be used, see `connected` and `check_nodes`. DuctalError: see `tune`.
    """
    console = console or Console(quiet=True)
    with connected(address) as ray:
        if tuning.at_once is None:
            stored = window_of(storage_url(tuning.data.out, tuning.storage), tuning.study)
            tuning = replace(tuning, at_once=stored or places_of(ray, cpus))
        say(
            console,
            f"Up to {tuning.at_once} trials at once; a study with --at-once {tuning.at_once} on one machine draws "
            "the same.",
        )
        crew = RayCrew(ray, cpus, run)
        return tune(tuning, console, crew=crew)


class RayCrew:
    """Runs trials as tasks; see `ductal.tune.crew.Crew`.

    Args:
        ray: the connected module.
        cpus: of a trial.
        run: what a trial is.
    """

    def __init__(self, ray: Any, cpus: int, run: RunTrial = run_trial) -> None:
        self._ray, self._cpus, self._run = ray, cpus, run
        self._task = ray.remote(_trial_task).options(num_cpus=cpus, max_retries=0)
        self._mailbox = open_mailbox(ray)
        self._stopped = threading.Event()

    def check(self, study: Study) -> None:
        """Refuse nodes that do not see the cohort and the folder, or have other versions. Raises ClusterError."""
        cohort = study.bench.patients.cohort.folder.absolute()
        own = study.bench.weights_file
        encoder = study.recipe.encoder
        files = [*(cohort / name for name in (INFO, PIXELS, TABLE)), *([own.absolute()] if own else [])]
        files += onnx_files(Path(encoder.file)) if encoder else []
        packages = (*PACKAGES, "optuna")  # which a worker imports
        for text in check_nodes(self._ray, study.folder.absolute(), files, self._cpus, packages):
            say(study.console, f"Note: {text}")

    def stop(self) -> None:
        """See `Crew`."""
        self._stopped.set()

    def run(self, bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:
        """A trial on the cluster, in place of `run_trial`. Raises LostTrialError where its worker is lost."""
        key = uuid.uuid4().hex
        common = (self._mailbox, key, self._cpus, self._run)
        task = self._task.remote(_Sent.of(bench), recipe, folder.absolute(), *common)
        try:
            self._follow(task, key, report)
        except BaseException:
            self._ray.get(self._mailbox.answer.remote(key, False))  # ends the training at its next epoch
            if self._stopped.is_set():
                cancel(self._ray, [task])
            else:
                self._ray.wait([task], timeout=_SECONDS_TO_END)
            raise
        finally:
            self._mailbox.forget.remote(key)
        result = outcome_of(self._ray, task)
        if isinstance(result, Gone):
            raise LostTrialError(result.reason)
        if isinstance(result, DuctalError):
            raise result
        return float(result)

    def _follow(self, task: Any, key: str, report: Report) -> None:
        """Pass on what the task tells, until it has ended."""
        told = self._mailbox.hear.remote(key)
        while True:
            if self._stopped.is_set():
                raise KeyboardInterrupt
            done, _ = self._ray.wait([task, told], timeout=_GLANCE_SECONDS)
            if task in done:
                return
            if told in done:
                report(*self._ray.get(told))
                self._ray.get(self._mailbox.answer.remote(key, True))
                told = self._mailbox.hear.remote(key)


@dataclass(frozen=True)
class _Sent:
    """A bench without its pixels, which a worker maps from the shared disk."""

    cohort: Path
    fingerprint: str
    patients: Patients
    bench: Bench

    @classmethod
    def of(cls, bench: Bench) -> _Sent:
        cohort, own = bench.patients.cohort, bench.weights_file
        patients: Any = replace(bench.patients, cohort=None)  # type: ignore[arg-type]
        light = replace(
            bench, patients=patients, features=bench.features.absolute(), weights_file=own and own.absolute()
        )
        return cls(cohort.folder.absolute(), cohort.info.fingerprint, patients, light)

    def open(self) -> Bench:
        cohort = Cohort.open(self.cohort, self.fingerprint)
        return replace(self.bench, patients=replace(self.patients, cohort=cohort))


class _StoppedError(Exception):
    """The driver wants no more of a trial."""


def _trial_task(
    sent: _Sent, recipe: Recipe, folder: Path, mailbox: Any, key: str, cpus: int, run: RunTrial
) -> float | DuctalError | None:
    """In a worker: one trial. None where the driver ended it."""
    import ray

    os.environ[THREADS] = str(cpus)

    def report(step: int, best: float) -> None:
        if not ray.get(mailbox.say.remote(key, step, best)):
            raise _StoppedError

    try:
        return run(sent.open(), recipe, folder, report)
    except _StoppedError:
        return None
    except DuctalError as error:
        return error
