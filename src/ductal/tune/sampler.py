"""TPE that goes on after a kill as if there had been none."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from ductal.tune.trials import PLACE, was_interrupted
from ductal.tune.window import known_at, next_place


class ResumableTPE(BaseSampler):
    """Optuna's TPE (Bergstra et al. 2011, NeurIPS) with a generator of its own for every trial.

    Optuna keeps the state of its generator in the process, so that a killed study would go on with other draws. Here
    a trial's draws follow from the seed, from how many trials were begun before it, and from what these
    gave; trials that were interrupted and repeated do not count. One worker therefore draws the same trials whether
    it was killed or not. Several workers do not: what one draws depends on what the others have finished by then.

    Args:
        seed: of the study.
        at_once: how many trials one worker runs at once; above 1 a trial knows only those of its window
            (`ductal.tune.window`), and its place stands for how many were begun before it.
    """

    def __init__(self, seed: int, at_once: int = 1) -> None:
        self._seed, self._at_once = seed, at_once
        self._made = threading.local()  # trials that run at once do so in a thread each

    def _of(self, study: Study, trial: FrozenTrial) -> TPESampler:
        self._make(study, trial)
        made: TPESampler = self._made.sampler
        return made

    def _known(self, study: Study, trial: FrozenTrial) -> Study:
        self._make(study, trial)
        known: Study | None = self._made.known
        return known or study

    def _make(self, study: Study, trial: FrozenTrial) -> None:
        if getattr(self._made, "number", None) == trial.number:
            return
        # Not `get_trials`: for hyperband Optuna passes a study that shows the trials of one bracket only.
        others = study._storage.get_all_trials(study._study_id, deepcopy=False)
        if self._at_once == 1:
            place = sum(other.number < trial.number and not was_interrupted(other) for other in others)
            self._made.known = None
        else:
            place = trial.user_attrs.get(PLACE, next_place(others))
            self._made.known = known_at(place, study, self._at_once)
        seed = np.random.SeedSequence([self._seed, place]).generate_state(1)[0]
        # Its "liar" looks at trials that run, of which none is known here.
        sampler = TPESampler(seed=int(seed), constant_liar=self._at_once == 1)
        self._made.number, self._made.sampler = trial.number, sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See Optuna."""
        return self._of(study, trial).infer_relative_search_space(self._known(study, trial), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna."""
        return self._of(study, trial).sample_relative(self._known(study, trial), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See Optuna."""
        known = self._known(study, trial)
        return self._of(study, trial).sample_independent(known, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """See Optuna."""
        self._of(study, trial).before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """See Optuna."""
        self._of(study, trial).after_trial(study, trial, state, values)
