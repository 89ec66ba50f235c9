"""Each training runs in a process of its own: its memory is returned, and a crash costs one run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from ductal.data.audit import AuditReport
from ductal.data.split import Split
from ductal.data.workers import main_left_out
from ductal.errors import DuctalError
from ductal.files import is_disk_error, storage_error, sweep
from ductal.tracking.options import Tracking
from ductal.training.recipe import Recipe

_SECONDS_TO_END = 5.0  # then it is killed, and the parent sweeps up


class _Task(NamedTuple):
    recipe: Recipe
    cohort_folder: Path
    fingerprint: str | None  # of the cohort; None takes what is there
    split: Split
    out: Path
    train: bool
    evaluate: bool
    tell: bool  # send every epoch to the parent, and print nothing
    settings: dict[str, Any]  # further arguments of `ductal.training.trainer.train`


def train_isolated(
    recipe: Recipe,
    cohort_folder: Path,
    split: Split,
    out: Path,
    *,
    audit: AuditReport,
    seed: int,
    profile: str,
    weights_file: Path | None,
    final: bool = True,
    trained: bool = False,
    features_folder: Path | None = None,
    later: tuple[Recipe, ...] = (),
    fresh: bool = False,
    tracking: Tracking | None = None,
    gpus: int | None = None,
    deterministic: bool = False,
    fingerprint: str | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """`ductal.training.trainer.train` in a child process that shares this terminal; returns `out`.

    With `final`, the child also makes the final evaluation, which opens the test patients. With
    `trained`, `out` holds the trained model already, and only the evaluation is made.

    With a `fingerprint`, a cohort that has been replaced by another one meanwhile is refused.

    `on_epoch` is called here with each new row of the history, and nothing is printed then; what it raises ends the
    training.

    Ctrl-C ends the child within seconds, and so does the end of this process, however it comes about.

    Raises:
        DuctalError: what the child raised; or it was killed (for want of memory, mostly); or it met
            something unforeseen, and the message holds its traceback.
    """
    settings = {
        "audit": audit, "seed": seed, "profile": profile, "weights_file": weights_file,
        "features_folder": features_folder, "later": later, "fresh": fresh,
        "tracking": tracking, "gpus": gpus,
        "deterministic": deterministic,
    }  # fmt: skip
    task = _Task(
        recipe, cohort_folder, fingerprint, split, out, not trained, final, on_epoch is not None, settings
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, task))
    with main_left_out(), _interrupts_blocked():
        process.start()
    sender.close()
    try:
        outcome = _outcome(receiver, on_epoch)
        process.join(_SECONDS_TO_END)
    except EOFError:
        process.join(_SECONDS_TO_END)
        raise _death(recipe.name, process.exitcode) from None
    finally:
        _end(process)
        receiver.close()
        sweep(out)
    if outcome is not None:
        raise outcome
    return out


def _outcome(receiver: Connection, on_epoch: Callable[[dict[str, Any]], None] | None) -> DuctalError | None:
    """What the child ends with; the epochs before are passed on."""
    while isinstance(message := receiver.recv(), dict):
        if on_epoch:
            on_epoch(message)
    outcome: DuctalError | None = message
    return outcome


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes started here never see Ctrl-C (the mask is inherited); this one sees it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(process: BaseProcess) -> None:
    """Ask the child to clean up and end; a second Ctrl-C, or too long a wait, ends it at once."""
    try:
        if process.is_alive():
            process.terminate()
            process.join(_SECONDS_TO_END)
    finally:
        process.kill()
        process.join()


def _death(name: str, code: int | None) -> DuctalError:
    how = f"ended with exit code {code}"
    if code is not None and code < 0:
        how = f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return DuctalError(
        f"The training of {name} {how}, most often for want of memory. Finished runs and epochs are kept: "
        "close other programs, and run it again; or use a smaller batch_size, which begins anew."
    )


def _child(sender: Connection, task: _Task) -> None:
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _work(task, sender)
        outcome = None
    except KeyboardInterrupt:
        return
    except BaseException as error:
        outcome = _portable(error, task)
    sender.send(outcome)


def _stop(number: int, _: object) -> None:
    # Once: a second exception would interrupt the cleaning up after the first.
    signal.signal(number, signal.SIG_IGN)
    # The parent says what happened. Raised inside a destructor, Python would print the interrupt and go on,
    # and the parent would kill this process after a few seconds: no reason for a traceback on the terminal.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """A parent that was killed can end nobody: notice it, clean up, and go."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_TO_END)
        os._exit(1)


def _work(task: _Task, sender: Connection) -> None:
    from rich.console import Console

    from ductal.console import make_console, quiet_tensorflow

    quiet_tensorflow()
    from ductal.data.cohort import Cohort
    from ductal.evaluation.evaluate import evaluate
    from ductal.tracking.trackers import track_evaluation
    from ductal.training.deterministic import determinism
    from ductal.training.progress import TrainingProgress
    from ductal.training.trainer import train

    cohort = Cohort.open(task.cohort_folder, task.fingerprint)
    console, on_epoch = (Console(quiet=True), sender.send) if task.tell else (make_console(), None)
    with (
        TrainingProgress(task.recipe.name, console, on_epoch) as progress,
        determinism(task.settings["seed"], wanted=task.settings["deterministic"]),
    ):
        if task.train:
            train(task.recipe, cohort, task.split, task.out, progress=progress, **task.settings)
        if task.evaluate:
            evaluate(task.out, cohort, task.split, progress=progress.passing("evaluation"))
            if task.settings["tracking"] is not None:
                track_evaluation(task.settings["tracking"], task.out, progress.warn)


def _portable(error: BaseException, task: _Task) -> DuctalError:
    """The error as one that crosses to the parent; an unforeseen one with its traceback as text."""
    if isinstance(error, OSError) and is_disk_error(error):
        error = storage_error(error, task.out)
    if isinstance(error, DuctalError):
        try:
            pickle.loads(pickle.dumps(error))
            return error
        except Exception:  # one with arguments of its own
            return DuctalError(str(error))
    text = "".join(traceback.format_exception(error)).rstrip()
    return DuctalError(
        f"The training of {task.recipe.name} met something unforeseen, which is a mistake in ductal or a "
        f"library of its. Finished runs are kept. Please report this text:\n{text}"
    )
