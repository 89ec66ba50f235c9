"""Trials at once: a thread for each, which waits while something elsewhere trains."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from ductal.training.recipe import Recipe
from ductal.tune.running import Turns, run_trials
from ductal.tune.study import Study
from ductal.tune.trial import Bench, Report


class Crew(Protocol):
    """What trains elsewhere, several trials at once."""

    def check(self, study: Study) -> None:
        """Refuse what cannot work, before a trial has begun. Raises DuctalError."""

    def run(self, bench: Bench, recipe: Recipe, folder: Path, report: Report) -> float:
        """A trial, in place of `ductal.tune.trial.run_trial`."""

    def stop(self) -> None:
        """Have every `run` under way raise KeyboardInterrupt soon."""


def run_at_once(study: Study, crew: Crew) -> None:
    """`run_trials` in as many threads as the study's window has places. Only this process writes its database.

    Raises:
        KeyboardInterrupt, DuctalError: see `run_trials`; the trials under way are queued again first.
    """
    crew.check(study)
    turns, problems = Turns(), list[BaseException]()

    def work() -> None:
        try:
            run_trials(study, turns)
        except BaseException as error:
            problems.append(error)
            end()

    def end() -> None:
        turns.end()
        crew.stop()

    threads = [threading.Thread(target=work) for _ in range(study.tuning.window)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        end()
        for thread in threads:
            thread.join()
        raise
    if problems:
        raise problems[0]
