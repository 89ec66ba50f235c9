"""Trials of a study until there are enough, by one worker or many."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from ductal.console import say
from ductal.errors import DuctalError, FeaturesError, RunError, StorageError, WeightsError
from ductal.tune.storage import fail_orphans, requeue, worker_here
from ductal.tune.study import Study, best_trial
from ductal.tune.trial import LostTrialError
from ductal.tune.trials import DRAWN, LOSSES, PLACE, PROBLEM, WORKER, is_settled, is_taken, was_interrupted
from ductal.tune.window import may_begin, next_place

MOST_LOSSES = 4  # of one trial's workers; then the trial itself is to blame
_WAIT_SECONDS = 1.0  # between looks at trials that others are busy with
_PROBLEM_LENGTH = 1000  # characters of a reason that a database must hold


class _FailedError(Exception):
    """A trial that is over for a reason of its own."""


class _NoPlaceError(Exception):
    """Another worker has begun the last trial a moment earlier."""


@dataclass(frozen=True)
class Turns:
    """What threads share that run trials of one study: only one begins a trial at a time, and all end together."""

    begin: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wake(self) -> None:
        """Have those look again that wait for others' trials."""
        with self.changed:
            self.changed.notify_all()

    def end(self) -> None:
        """No thread begins another trial."""
        self.over.set()
        self.wake()


def run_trials(study: Study, turns: Turns | None = None) -> None:
    """Run trials until the study has as many as were asked for, or the time is over.

    Trials that another worker is busy with are waited for: should it die, they are taken over.

    Raises:
        KeyboardInterrupt: the trial under way is queued again first. StorageError, WeightsError: trials cannot run.
    """
    turns = turns or Turns()
    limit = study.tuning.timeout_minutes
    deadline = None if limit is None else time.monotonic() + 60 * limit
    while not turns.over.is_set():
        with ExitStack() as turn:
            turn.enter_context(turns.begin)
            fail_orphans(study.optuna)
            trials = study.trials()
            if sum(map(is_settled, trials)) >= study.tuning.trials:
                return
            if deadline is not None and time.monotonic() >= deadline:
                say(study.console, f"No further trial after {limit:g} minutes; the same command goes on from here.")
                return
            if sum(map(is_taken, trials)) < study.tuning.trials and may_begin(trials, study.tuning.window):
                _one_trial(study, turn.close)
                turns.wake()
                continue
        with turns.changed:
            turns.changed.wait(_WAIT_SECONDS)


def _one_trial(study: Study, begun: Callable[[], None]) -> None:
    """Run a trial; `begun` is called when its parameters are drawn."""
    trials: list[Trial] = []
    over = False  # as far as this worker goes

    def objective(trial: Trial) -> float:
        nonlocal over
        trials.append(trial)
        try:
            value = _objective(study, trial, begun)
        except UpdateFinishedTrialError:
            over = True
            raise
        over = True
        return value

    try:
        study.optuna.optimize(objective, n_trials=1, catch=(_FailedError, _NoPlaceError), callbacks=[_tell(study)])
    except BaseException as error:
        ended = study.trials()[trials[0].number] if trials else None
        if ended is None or not was_interrupted(ended):
            raise
        if over and isinstance(error, ValueError | UpdateFinishedTrialError):
            say(study.console, f"trial {ended.number}: silent for too long, so another worker has taken it")
            return
        requeue(study.optuna, ended)
        if isinstance(error, LostTrialError):
            say(study.console, f"trial {ended.number}: {error}, so it is repeated")
            return
        raise


def _objective(study: Study, trial: Trial, begun: Callable[[], None]) -> float:
    trial.set_user_attr(WORKER, worker_here())
    ahead = sum(is_taken(other) for other in study.trials() if other.number < trial.number)
    if ahead >= study.tuning.trials:
        raise _NoPlaceError
    if PLACE not in trial.user_attrs:
        trial.set_user_attr(PLACE, next_place(study.trials()))
    values = study.space.suggest(trial)
    trial.set_user_attr(DRAWN, True)
    begun()

    def report(step: int, best: float) -> None:
        trial.report(best, step)
        if trial.should_prune():
            raise TrialPruned

    folder = study.trial_folder(trial.number)
    try:
        recipe = study.space.apply(study.recipe, values)
        value = study.run(study.bench, recipe, folder, report)
        if not math.isfinite(value):
            raise RunError(f"{study.tuning.metric} is {value}: the training diverged.")
        return value
    except LostTrialError as error:
        losses = trial.user_attrs.get(LOSSES, 0) + 1
        if losses < MOST_LOSSES:
            trial.set_user_attr(LOSSES, losses)
            raise
        trial.set_user_attr(PROBLEM, f"It was begun {losses} times, and each time {error}.")
        raise _FailedError from error
    except DuctalError as error:
        if isinstance(error, StorageError | WeightsError) and not isinstance(error, FeaturesError):
            raise  # every other trial would meet the same
        trial.set_user_attr(PROBLEM, str(error)[:_PROBLEM_LENGTH])
        raise _FailedError from error


def _tell(study: Study) -> Callable[[optuna.Study, FrozenTrial], None]:
    """One line for every trial."""

    def tell(_: optuna.Study, trial: FrozenTrial) -> None:
        if not is_settled(trial):
            return
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        if trial.state == TrialState.COMPLETE:
            best = best_trial(study)
            assert best is not None
            rank = "the best so far" if best.number == trial.number else f"best {best.value:.4f}, trial {best.number}"
            outcome = f"{study.tuning.metric} {trial.value:.4f} ({rank})"
        elif trial.state == TrialState.PRUNED:
            outcome = f"pruned after step {trial.last_step} at {trial.intermediate_values[trial.last_step or 0]:.4f}"
        else:
            outcome = f"failed: {trial.user_attrs[PROBLEM]}"
        settled = sum(map(is_settled, study.trials()))
        drawn = ", ".join(f"{key} {_short(value)}" for key, value in trial.params.items())
        place = f"{settled}/{study.tuning.trials}  trial {trial.number}"
        say(study.console, f"{place}: {outcome}; {seconds:.0f} s; {drawn}")

    return tell


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
