"""TPE that goes on after a kill as if there had been none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from ductal.tune.trials import was_interrupted


class ResumableTPE(BaseSampler):
    """Optuna's TPE (Bergstra et al. 2011, NeurIPS) with a generator of its own for every trial.

    Optuna keeps the state of its generator in the process, so that a killed study would go on with other draws. Here
    a trial's draws follow from the seed, from how many trials were begun before it, and from what these
    gave; trials that were interrupted and repeated do not count. One worker therefore draws the same trials whether
    it was killed or not. Several workers do not: what one draws depends on what the others have finished by then.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: tuple[int, TPESampler] | None = None

    def _of(self, study: Study, trial: FrozenTrial) -> TPESampler:
        if self._made is None or self._made[0] != trial.number:
            others = study.get_trials(deepcopy=False)
            before = sum(other.number < trial.number and not was_interrupted(other) for other in others)
            seed = np.random.SeedSequence([self._seed, before]).generate_state(1)[0]
            self._made = trial.number, TPESampler(seed=int(seed))
        return self._made[1]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See Optuna."""
        return self._of(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna."""
        return self._of(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See Optuna."""
        return self._of(study, trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """See Optuna."""
        self._of(study, trial).before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """See Optuna."""
        self._of(study, trial).after_trial(study, trial, state, values)
