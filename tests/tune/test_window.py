"""Trials that may run at once: what each knows, and that its draws do not depend on who ends first."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from small_studies import computed, database, settled, tuning

from ductal.data.cohort import Cohort
from ductal.errors import RunError, StorageError
from ductal.tune.search import tune
from ductal.tune.storage import storage_url, window_of
from ductal.tune.study import Study
from ductal.tune.trial import Bench, LostTrialError, Report
from ductal.tune.trials import PLACE, PROBLEM, is_settled
from ductal.tune.window import known_at, may_begin, next_place

STATES = {"c": TrialState.COMPLETE, "p": TrialState.PRUNED, "r": TrialState.RUNNING, "w": TrialState.WAITING}


def trials(states: str) -> list[optuna.trial.FrozenTrial]:
    """A trial for each letter, at places 0, 1, ...; "f" failed by its own fault, "x" was interrupted."""
    made = []
    for place, letter in enumerate(states):
        attributes = {PLACE: place} | ({PROBLEM: "crashed"} if letter == "f" else {})
        values = [place / 10] if letter == "c" else None
        state = STATES.get(letter, TrialState.FAIL)
        made.append(optuna.trial.create_trial(state=state, values=values, user_attrs=attributes))
    return made


@pytest.mark.parametrize(
    ("states", "at_once", "may"),
    [
        ("", 3, True),
        ("r", 3, False),  # the first is alone
        ("c", 3, True),
        ("cr", 3, True),
        ("crr", 3, True),
        ("crrr", 3, False),
        ("crcc", 3, False),  # place 4 must know what place 1 gave
        ("cpfr", 3, True),
        ("crrrw", 3, True),  # one that is repeated is no new one
        ("cxcc", 3, False),  # interrupted and not queued yet
        ("crrr", 1, True),  # other commands run them: no window
    ],
)
def test_when_a_trial_may_begin(states: str, at_once: int, may: bool) -> None:
    assert may_begin(trials(states), at_once) is may


def test_what_a_trial_knows() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials("ccpfc"))
    assert next_place(study.trials) == 5
    for at_once, places in {1: [0, 1, 2, 4], 2: [0, 1, 2], 4: [0, 1], 6: []}.items():
        known = known_at(5, study, at_once)
        assert [trial.user_attrs[PLACE] for trial in known.trials] == places
        assert known.direction == study.direction


class Threads:
    """A crew of threads: trials take random times, and now and then the worker of one is lost."""

    def __init__(self, seed: int = 0, loses: float = 0.0) -> None:
        self.random, self.loses = random.Random(seed), loses
        self.lost, self.running, self.most = 0, 0, 0
        self.stopped = threading.Event()

    def check(self, study: Study) -> None:
        assert study.trials() is not None

    def stop(self) -> None:
        self.stopped.set()

    def run(self, bench: Bench, recipe: Any, folder: Path, report: Report) -> float:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.stopped.wait(self.random.uniform(0.1, 0.5)):
                raise KeyboardInterrupt
            if self.random.random() < self.loses:
                self.lost += 1
                raise LostTrialError("its node was lost")
            return computed(bench, recipe, folder, report)
        finally:
            self.running -= 1


def shown(out: Path) -> list[tuple[Any, ...]]:
    """Everything that trials of the same study must share, in the order of their places."""
    found = [trial for trial in database(out) if is_settled(trial)]
    found.sort(key=lambda trial: trial.user_attrs[PLACE])
    return [
        (trial.user_attrs[PLACE], trial.state, trial.params, trial.values, trial.intermediate_values)
        for trial in found
    ]


def test_the_same_study_whoever_ends_first(tiny_cohort: Cohort, tmp_path: Path) -> None:
    """One after the other, three at once, and with every fourth worker lost: the same trials, pruned alike."""
    settings = {"at_once": 3, "pruner": "median"}
    tune(tuning(tiny_cohort.folder, tmp_path / "alone", 17, **settings), run=computed)
    assert {trial.state for trial in database(tmp_path / "alone")} >= {TrialState.PRUNED, TrialState.COMPLETE}
    for name, crew in {"at-once": Threads(1), "lossy": Threads(2, 0.25)}.items():
        tune(tuning(tiny_cohort.folder, tmp_path / name, 17, **settings), crew=crew)
        assert shown(tmp_path / name) == shown(tmp_path / "alone")
        assert 2 <= crew.most <= 3
    assert crew.lost > 0
    assert len(database(tmp_path / "lossy")) == 17 + crew.lost


def test_hyperband_and_several_at_once_are_refused(tiny_cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="hyperband cannot work with 3 trials at once"):
        tuning(tiny_cohort.folder, tmp_path, 2, at_once=3, pruner="hyperband")
    tune(tuning(tiny_cohort.folder, tmp_path, 9, at_once=1, pruner="hyperband"), run=computed)
    drawn = [trial.params["stages.0.learning_rate"] for trial in database(tmp_path)]
    assert len(set(drawn)) == 9  # in whatever brackets they are


def test_a_study_keeps_its_window(tiny_cohort: Cohort, tmp_path: Path) -> None:
    url = storage_url(tmp_path, None)
    assert window_of(url, "ductal") is None
    assert not (tmp_path / "study.db").exists()
    tune(tuning(tiny_cohort.folder, tmp_path, 2, at_once=2), run=computed)
    assert window_of(url, "ductal") == 2
    assert window_of(url, "another") is None
    with pytest.raises(RunError, match="at_once"):
        tune(tuning(tiny_cohort.folder, tmp_path, 3), run=computed)


def test_a_trial_that_loses_every_worker_has_failed(tiny_cohort: Cohort, tmp_path: Path) -> None:
    crew = Threads(loses=1.0)
    with pytest.raises(RunError, match="It was begun 4 times, and each time its node was lost"):
        tune(tuning(tiny_cohort.folder, tmp_path, 2, at_once=2), run=crew.run, crew=crew)
    assert crew.lost == 8
    assert len(settled(tmp_path)) == 2


def test_what_ends_one_thread_ends_all(tiny_cohort: Cohort, tmp_path: Path) -> None:
    """Trials under way are queued again, and the study goes on as if nothing had been."""
    tune(tuning(tiny_cohort.folder, tmp_path / "whole", 12, at_once=3), run=computed)

    class Full(Threads):
        def run(self, *arguments: Any) -> float:
            if len(settled(tmp_path / "cut")) >= 5:
                time.sleep(0.05)
                raise StorageError("The disk is full.")
            return super().run(*arguments)

    crew = Full()
    with pytest.raises(StorageError, match="full"):
        tune(tuning(tiny_cohort.folder, tmp_path / "cut", 12, at_once=3), crew=crew)
    assert crew.stopped.is_set()
    assert TrialState.RUNNING not in {trial.state for trial in database(tmp_path / "cut")}
    tune(tuning(tiny_cohort.folder, tmp_path / "cut", 12, at_once=3), run=computed)
    assert shown(tmp_path / "cut") == shown(tmp_path / "whole")
