"""What the trials of a study are: finished, failed for a reason of their own, or interrupted and to be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

PROBLEM = "problem"  # why a trial failed; a trial without it was interrupted
DRAWN = "drawn"  # that all parameters of a trial are there
WORKER = "worker"  # {"host": ..., "process": ...} of the command that runs it
PLACE = "place"  # in the order of a study; whoever repeats a trial has the same
LOSSES = "losses"  # how many workers were lost with it
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def was_interrupted(trial: FrozenTrial) -> bool:
    """Whether it ended without a result and not by its own fault, as in a kill, and another repeats it."""
    return trial.state == TrialState.FAIL and PROBLEM not in trial.user_attrs


def is_settled(trial: FrozenTrial) -> bool:
    """Whether it counts as one of the trials that were asked for: complete, pruned, or failed by its own fault."""
    return trial.state.is_finished() and not was_interrupted(trial)


def is_taken(trial: FrozenTrial) -> bool:
    """Whether it has, or is getting, one of the places in a study."""
    return trial.state == TrialState.RUNNING or is_settled(trial)


def table_of(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """One row a trial: number, state, value, epochs, seconds, problem, worker, and a column for each parameter.

    Trials that were interrupted are left out: others have repeated them.
    """
    return pd.DataFrame(
        [
            {
                "trial": trial.number,
                "state": STATES[trial.state],
                "value": trial.value if trial.state == TrialState.COMPLETE else None,
                "steps": trial.last_step or 0,
                "last_reported": trial.intermediate_values.get(trial.last_step or 0),
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                "problem": trial.user_attrs.get(PROBLEM, ""),
                "worker": _worker(trial.user_attrs.get(WORKER)),
                **trial.params,
            }
            for trial in trials
            if not was_interrupted(trial)
        ]
    )


def _worker(worker: Any) -> str:
    return f"{worker['host']}-{worker['process']}" if worker else ""
