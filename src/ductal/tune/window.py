"""Trials that run at once: what each may know of the others, so that its draws do not depend on who ends first.

A trial has a place in its study, which whoever repeats it inherits. With a window of K, the trial at place p knows
those up to place p - K, and is not drawn before all of these have ended. So K can run at once; the draws, and what a
rule that prunes sees, are the same as if one machine had run them one after the other with the same K.
"""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from ductal.tune.trials import PLACE, is_settled


def next_place(trials: Sequence[FrozenTrial]) -> int:
    """The place of the next new trial."""
    return 1 + max((trial.user_attrs.get(PLACE, -1) for trial in trials), default=-1)


def may_begin(trials: Sequence[FrozenTrial], at_once: int) -> bool:
    """Whether the next trial can be drawn now.

    Beside the window: the first trial is alone, so that what it computes for all (activations of frozen layers) is
    computed once.
    """
    if at_once == 1 or any(trial.state == TrialState.WAITING for trial in trials):
        return True
    upcoming = next_place(trials)
    ended = {trial.user_attrs.get(PLACE) for trial in trials if is_settled(trial)}
    open_places = [place for place in range(upcoming) if place not in ended]
    return upcoming - min(open_places, default=upcoming) < at_once and 0 not in open_places


def known_at(place: int, study: Study, at_once: int) -> Study:
    """A study in memory: trials with a figure that the one at `place` may know, in the order of their places."""
    last = place - at_once
    known = [
        other
        for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if other.user_attrs.get(PLACE, other.number) <= last
    ]
    view = optuna.create_study(direction=study.direction, study_name=study.study_name)
    view.add_trials(sorted(known, key=lambda other: other.user_attrs.get(PLACE, other.number)))
    return view


class WindowPruner(BasePruner):
    """A pruner that compares a trial only with those that it may know."""

    def __init__(self, pruner: BasePruner, at_once: int) -> None:
        self._pruner, self._at_once = pruner, at_once

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """See Optuna."""
        return self._pruner.prune(known_at(trial.user_attrs[PLACE], study, self._at_once), trial)
