"""A real PostgreSQL: two workers at once on one study, and one of them killed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from small_studies import computed, tuning

from ductal.data.cohort import Cohort
from ductal.tune.search import tune
from ductal.tune.trials import DRAWN, WORKER, is_settled, was_interrupted

pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
SCRIPT = Path(__file__).parent / "small_studies.py"


def server_programs() -> Path | None:
    """Where initdb and pg_ctl are; Debian keeps them off the path."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def as_server_user() -> list[str]:
    """PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL cannot be run by root, and there is no user postgres")
    return ["runuser", "-u", "postgres", "--"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a database in a server of its own, which lives in a temporary folder."""
    programs = server_programs()
    if programs is None or not (programs / "pg_ctl").exists():
        pytest.skip("PostgreSQL (Debian's package postgresql) is not installed")
    user = as_server_user()
    folder = Path(subprocess.check_output([*user, "mktemp", "-d", "/tmp/ductal-pg-XXXXXX"], text=True).strip())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*arguments: str) -> None:
        subprocess.run([*user, *arguments], check=True, stdout=subprocess.DEVNULL, timeout=60, cwd="/")

    control = (str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w", "-t", "40")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    try:
        run(str(programs / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "ductal", "--no-sync")
        run(*control, "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://ductal@127.0.0.1:{port}/postgres"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        run("rm", "-rf", str(folder))


def worker(cohort: Cohort, out: Path, trials: int, seconds: float, url: str) -> subprocess.Popen[bytes]:
    arguments = [cohort.folder, out, trials, seconds, url]
    return subprocess.Popen([sys.executable, SCRIPT, *map(str, arguments)], stdout=subprocess.DEVNULL)


def trials_of(url: str) -> list[optuna.trial.FrozenTrial]:
    try:
        return optuna.load_study(study_name="ductal", storage=url).trials
    except KeyError:
        return []


def test_two_workers_share_a_study_and_one_is_killed(tiny_cohort: Cohort, tmp_path: Path, postgres: str) -> None:
    wanted = 24
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    workers = [worker(tiny_cohort, tmp_path / name, wanted, 0.4, postgres) for name in ("a", "b")]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        by = Counter(trial.user_attrs[WORKER]["process"] for trial in trials_of(postgres) if is_settled(trial))
        running = {
            t.user_attrs.get(WORKER, {}).get("process") for t in trials_of(postgres) if t.state.name == "RUNNING"
        }
        if all(by[each.pid] >= 3 for each in workers) and workers[0].pid in running:
            break
        time.sleep(0.05)
    assert all(by[each.pid] >= 3 for each in workers)
    workers[0].kill()
    workers[0].wait()
    assert workers[1].wait(timeout=60) == 0
    trials = trials_of(postgres)
    done = [trial for trial in trials if is_settled(trial)]
    assert len(done) == wanted
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    # What each trial left behind is there once: no trial was run by both.
    folders = [int(folder.name) for name in ("a", "b") for folder in (tmp_path / name / "trials").iterdir()]
    assert len(folders) == len(set(folders))
    assert set(folders) >= {trial.number for trial in done if trial.state == TrialState.COMPLETE}
    assert sum(trial.params == done[0].params for trial in done) == 1  # the shipped recipe was queued once
    killed = [trial for trial in trials if was_interrupted(trial) and DRAWN in trial.user_attrs]  # the others: anew
    for trial in killed:
        assert [again.params for again in done].count(trial.params) == 1
    # A third command finds nothing left to do, and reports the same study.
    assert (
        len(tune(tuning(tiny_cohort.folder, tmp_path / "c", wanted, storage=postgres), run=computed).trials) == wanted
    )
    assert not (tmp_path / "c" / "trials").exists()
