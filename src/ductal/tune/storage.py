"""Where a study lives: an Optuna study in a database, whose settings are fixed by whoever makes it."""

from __future__ import annotations

import copy
import json
import os
import platform
import time
import uuid
import warnings
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from ductal.errors import RunError, StorageError
from ductal.files import is_alive
from ductal.tune.sampler import ResumableTPE
from ductal.tune.trials import DRAWN, LOSSES, PLACE, WORKER
from ductal.tune.window import WindowPruner

Pruning = Literal["median", "hyperband", "none"]
DATABASE = "study.db"
SETTINGS = "settings"  # user attribute of the study
IDENTITY = "identity"  # user attribute: tells it from others of its name in other databases
HEARTBEAT_SECONDS, GRACE_SECONDS = 5, 30
_SECONDS_TO_SETTLE = 10.0  # for whoever makes a study to write its settings
_ATTEMPTS = 5  # at making the tables: two workers that begin at once get in each other's way


def storage_url(out: Path, given: str | None) -> str:
    """`given`, or a SQLite file in `out`."""
    return given or f"sqlite:///{(out / DATABASE).resolve()}"


def shown_url(url: str) -> str:
    """The address without its password."""
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)


def pruner_of(kind: Pruning, steps: int, at_once: int = 1) -> BasePruner:
    """The rule that ends hopeless trials, where a trial has at most `steps` steps and `at_once` run at once."""
    if kind == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max(steps, 2), reduction_factor=3)
    if kind == "median":
        median = MedianPruner(n_startup_trials=5, n_warmup_steps=min(2, steps - 1))
        return WindowPruner(median, at_once) if at_once > 1 else median
    return NopPruner()


def open_study(
    url: str,
    name: str,
    settings: Mapping[str, Any],
    *,
    direction: Literal["minimize", "maximize"],
    seed: int,
    pruner: BasePruner,
    first: Mapping[str, Any] | None,
    at_once: int = 1,
) -> optuna.Study:
    """Make the study `name` in the database, or join it.

    Args:
        url: of the database, in SQLAlchemy's form.
        name: of the study; a database may hold several.
        settings: everything that must be equal for all trials of a study, as JSON.
        direction: of the metric.
        seed: of the sampler.
        pruner: see `pruner_of`.
        first: parameters of the first trial of a new study.
        at_once: see `ductal.tune.window`.

    Raises:
        StorageError: the database cannot be used.
        RunError: the study exists with other settings.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = {"study_name": name, "storage": _connect(url)}
    study_settings: dict[str, Any] = place | {"sampler": ResumableTPE(seed, at_once), "pruner": pruner}
    try:
        study = optuna.create_study(direction=direction, **study_settings)
    except DuplicatedStudyError:
        study = optuna.load_study(**study_settings)
        if _settings_of(study) is not None:
            refuse_others(study, settings, url)
            _identify(study)
            return study
    # New; or left without settings by a process that was killed before it wrote them.
    if first is not None:
        study.enqueue_trial(dict(first), skip_if_exists=True)
    _identify(study)
    study.set_user_attr(SETTINGS, json.loads(json.dumps(settings)))
    return study


def _identify(study: optuna.Study) -> None:
    if IDENTITY not in study.user_attrs:  # new, or made by an earlier version
        study.set_user_attr(IDENTITY, uuid.uuid4().hex)


def fail_orphans(study: optuna.Study) -> None:
    """Take the trials of processes that are no more from them, and queue each again.

    Those of this machine are known at once; those of other machines when their heartbeat has been silent for
    `GRACE_SECONDS`.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(WORKER) or {}
        if worker.get("host") == _host() and not is_alive(int(worker["process"])):
            give_back(study, trial)
    with without_experimental_warnings(), suppress(UpdateFinishedTrialError):  # another worker was quicker
        optuna.storages.fail_stale_trials(study)


def give_back(study: optuna.Study, trial: FrozenTrial) -> None:
    """End a trial that has no result, unless somebody else just has, and queue its parameters again."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):  # somebody else has
        return
    requeue(study, trial)


def requeue(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the parameters of a trial that ended without a result."""
    again = copy.copy(trial)
    # Whoever takes it is another worker.
    again.user_attrs = {key: value for key, value in trial.user_attrs.items() if key in (PLACE, LOSSES)}
    if DRAWN not in trial.user_attrs:  # it ended between two of its parameters: all are drawn anew
        again.params, again.distributions = {}, {}
    with without_experimental_warnings():
        RetryHeartbeatStaleTrialCallback()(study, again)


def worker_here() -> dict[str, Any]:
    """This process, as a trial remembers it."""
    return {"host": _host(), "process": os.getpid()}


def _host() -> str:
    """This machine; containers of one name count their processes apart from each other."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return platform.node()


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Optuna warns that heartbeats and plots may change some day; which version is meant is in constraints.txt."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _connect(url: str) -> RDBStorage:
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    problem: Exception
    for attempt in range(_ATTEMPTS):
        try:
            with without_experimental_warnings():
                return RDBStorage(
                    url,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                    heartbeat_stale_trial_callback=requeue,
                )
        except (ArgumentError, NoSuchModuleError, ImportError, RuntimeError, OSError) as error:
            problem = error
            break
        except SQLAlchemyError as error:
            problem = error
            if isinstance(error, OperationalError) and not url.startswith("sqlite"):
                break
            time.sleep(0.5 * (attempt + 1))
    raise StorageError(
        f"The database of the study cannot be used: {_first_line(problem)}. Check --storage, which is an SQLAlchemy "
        "address such as postgresql+psycopg://user@host/name, that its driver is installed, and that it is running."
    ) from problem


def find_study(url: str, name: str) -> optuna.Study | None:
    """The study as it is, to look at; None where there is none yet. Raises StorageError."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=name, storage=_connect(url))
    except KeyError:
        return None


def window_of(url: str, name: str) -> int | None:
    """How many trials the study may run at once; None where there is no such study yet."""
    study = find_study(url, name)
    settings = None if study is None else _settings_of(study)
    return None if settings is None else int(settings.get("at_once", 1))


def _settings_of(study: optuna.Study) -> dict[str, Any] | None:
    """What the maker of the study wrote, waiting a little for it."""
    deadline = time.monotonic() + _SECONDS_TO_SETTLE
    while (found := study.user_attrs.get(SETTINGS)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def refuse_others(study: optuna.Study, settings: Mapping[str, Any], url: str, unknown: Container[str] = ()) -> None:
    """Refuse to join a study with other settings than it was made with; those named in `unknown` are not compared.

    Raises:
        RunError: they differ.
    """
    wanted, made = json.loads(json.dumps(settings)), _settings_of(study) or settings
    keys = [key for key in wanted.keys() | made.keys() if key not in unknown]
    differing = sorted(key for key in keys if wanted.get(key) != made.get(key))
    if differing:
        raise RunError(
            f"The study {study.study_name} in {shown_url(url)} was made with other settings: {', '.join(differing)}. "
            "All its trials must be alike: use the same ones, or begin another study in another "
            "--out, which needs another --study, too, where --storage names the database."
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
