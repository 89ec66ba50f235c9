"""Each training runs in a process of its own: its memory is returned, and a crash costs one run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ductal.data.audit import AuditReport
from ductal.data.split import Split
from ductal.data.workers import main_left_out
from ductal.errors import DuctalError
from ductal.training.recipe import Recipe


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
) -> Path:
    """`ductal.training.trainer.train` in a child process that shares this terminal; returns `out`.

    With `final`, the child also makes the final evaluation, which opens the test patients.

    Raises:
        DuctalError: what the child raised, or the child was killed (for want of memory, mostly).
        RuntimeError: the child met something unforeseen; the message is its traceback.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    settings = {"seed": seed, "profile": profile, "weights_file": weights_file}
    process = context.Process(target=_child, args=(sender, recipe, cohort_folder, split, out, audit, settings, final))
    with main_left_out():
        process.start()
    sender.close()
    try:
        try:
            outcome: Any = receiver.recv()
        except EOFError:
            process.join()
            raise DuctalError(
                f"The training of {recipe.name} ended unexpectedly (exit code {process.exitcode}), most often "
                "for want of memory. Finished runs are kept; use a smaller batch_size and run it again."
            ) from None
        process.join()
    finally:
        if process.is_alive():
            process.terminate()
            process.join(10)
            if process.is_alive():
                process.kill()
    if isinstance(outcome, BaseException):
        raise outcome
    return out


def _child(
    sender: Connection,
    recipe: Recipe,
    cohort_folder: Path,
    split: Split,
    out: Path,
    audit: AuditReport,
    settings: dict[str, Any],
    final: bool,
) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        from rich.console import Console

        from ductal.data.cohort import Cohort
        from ductal.evaluation.evaluate import evaluate
        from ductal.training.progress import TrainingProgress
        from ductal.training.trainer import train

        cohort = Cohort.open(cohort_folder)
        with TrainingProgress(recipe.name, Console()) as progress:
            train(recipe, cohort, split, out, audit=audit, progress=progress, **settings)
            if final:
                evaluate(out, cohort, split, progress=progress.passing("evaluation"))
        sender.send(None)
    except KeyboardInterrupt:
        sender.send(KeyboardInterrupt())
    except BaseException as error:
        sender.send(_portable(error))


def _portable(error: BaseException) -> BaseException:
    """The error itself if it can cross a process boundary, else one that carries its traceback as text."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
