"""Studies that are interrupted: Ctrl-C, SIGKILL and silent machines cost nothing but the trial under way."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from small_studies import computed, database, settled, tuning

from ductal.data.cohort import Cohort
from ductal.tune.search import tune
from ductal.tune.trials import was_interrupted

WORKER = (sys.executable, str(Path(__file__).parent / "small_studies.py"))


def test_a_study_goes_on_with_the_same_draws(tiny_cohort: Cohort, tmp_path: Path) -> None:
    """Interrupted in the fifth and in the fourteenth trial, it is trial by trial what it would have been."""
    settings = tuning(tiny_cohort.folder, tmp_path / "whole", 16)
    tune(settings, run=computed)
    again = tuning(tiny_cohort.folder, tmp_path / "cut", 16)
    for calls in (5, 9):
        left = calls

        def interrupted(*arguments: Any) -> float:
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt
            return computed(*arguments)

        with pytest.raises(KeyboardInterrupt):
            tune(again, run=interrupted)
        assert (tmp_path / "cut" / "report.html").is_file()
    tune(again, run=computed)
    assert settled(tmp_path / "cut") == settled(tmp_path / "whole")
    assert [was_interrupted(trial) for trial in database(tmp_path / "cut")].count(True) == 2
    assert not (tmp_path / "cut" / ".features").exists()


def start(*arguments: Any) -> subprocess.Popen[str]:
    """A worker that heeds Ctrl-C; tests that were started in the background inherit that it is ignored."""

    def heed() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.Popen([*WORKER, *map(str, arguments)], stdout=subprocess.PIPE, text=True, preexec_fn=heed)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"the worker ended without {text!r}")


def wait_for_running(out: Path) -> None:
    """Until a trial is under way and has its parameters."""
    for _ in range(200):
        if any(trial.state == TrialState.RUNNING and "drawn" in trial.user_attrs for trial in database(out)):
            return
        time.sleep(0.02)
    pytest.fail("no trial is under way")


def test_sigkill_costs_nothing(tiny_cohort: Cohort, tmp_path: Path) -> None:
    """Killed with SIGKILL in the middle of a trial: the trial is repeated, and nothing else happens twice."""
    tune(tuning(tiny_cohort.folder, tmp_path / "whole", 8), run=computed)
    process = start(tiny_cohort.folder, tmp_path / "killed", 8, 1)
    wait_for(process, "3/8")
    wait_for_running(tmp_path / "killed")
    process.kill()
    process.communicate()
    assert [trial.state for trial in database(tmp_path / "killed")].count(TrialState.RUNNING) == 1
    found = tune(tuning(tiny_cohort.folder, tmp_path / "killed", 8), run=computed)
    states = [trial.state for trial in database(tmp_path / "killed")]
    assert TrialState.RUNNING not in states
    assert TrialState.WAITING not in states
    assert len(states) == 9
    assert len(found.trials) == 8
    assert settled(tmp_path / "killed") == settled(tmp_path / "whole")


def test_a_silent_worker_of_another_machine(
    tiny_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process cannot be looked for; its heartbeat can."""
    monkeypatch.setattr("ductal.tune.storage.GRACE_SECONDS", 1)
    process = start(tiny_cohort.folder, tmp_path, 4, 1)
    wait_for(process, "2/4")
    wait_for_running(tmp_path)
    process.kill()
    process.communicate()
    monkeypatch.setattr("ductal.tune.storage._host", lambda: "elsewhere")
    assert len(tune(tuning(tiny_cohort.folder, tmp_path, 4), run=computed).trials) == 4
    assert len(settled(tmp_path)) == 4


def test_ctrl_c_in_another_process(tiny_cohort: Cohort, tmp_path: Path) -> None:
    process = start(tiny_cohort.folder, tmp_path, 50, 1)
    wait_for(process, "2/50")
    wait_for_running(tmp_path)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    states = [trial.state for trial in database(tmp_path)]
    assert states[-2:] == [TrialState.FAIL, TrialState.WAITING]
    assert TrialState.RUNNING not in states
