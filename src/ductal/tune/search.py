"""`ductal tune`: the whole search in one call."""

from __future__ import annotations

from rich.console import Console

from ductal.console import say
from ductal.errors import RunError, StorageError
from ductal.experiment import CLAIM
from ductal.files import sole_writer
from ductal.tune.crew import Crew, run_at_once
from ductal.tune.findings import Findings
from ductal.tune.judge import judge_once
from ductal.tune.results import BEST, REPORT, write_results
from ductal.tune.running import run_trials
from ductal.tune.study import Study, Tuning, close_study, prepare_study, what_varies
from ductal.tune.trial import RunTrial, run_trial
from ductal.tune.trials import is_settled


def tune(
    tuning: Tuning, console: Console | None = None, run: RunTrial = run_trial, crew: Crew | None = None
) -> Findings:
    """Carry out `tuning`, or go on with it where an earlier or another command is, and write what was found.

    Args:
        tuning: what to do.
        console: where it is told.
        run: what a trial is; a crew has its own.
        crew: what runs trials at once; without one, they run one after the other.

    Raises:
        RunError: all trials failed, or the study has other settings. StorageError: the database or the disk refused,
            or (`BusyError`) another command writes into the folder; each worker of a study has its own.
        DuctalError: source, recipe, space or split cannot be used.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    console = console or Console(quiet=True)
    try:
        varied = what_varies(tuning)
        with sole_writer(tuning.data.out / CLAIM):
            study = prepare_study(tuning, *varied, console, crew.run if crew else run)
            return _searched(study, crew)
    except (StorageInternalError, SQLAlchemyError) as error:
        raise StorageError(
            f"The database of the study failed: {str(error).splitlines()[0]} Finished trials are kept; "
            "the same command goes on from there."
        ) from error


def _searched(study: Study, crew: Crew | None) -> Findings:
    console = study.console
    try:
        if crew is None:
            run_trials(study)
        else:
            run_at_once(study, crew)
    except KeyboardInterrupt:
        write_results(study)
        raise
    done = sum(map(is_settled, study.trials())) >= study.tuning.trials
    if done:
        judge_once(study)
        close_study(study)
    found = write_results(study)
    if found.best is None:
        problems = [text for text in found.trials.get("problem", []) if text]
        reason = f" The last: {problems[-1]}" if problems else ""
        raise RunError(f"No trial has finished with a figure; {study.folder / REPORT} lists them.{reason}")
    say(console, f"Best recipe: {study.folder / BEST}")
    say(console, f"Report: {study.folder / REPORT}")
    return found
