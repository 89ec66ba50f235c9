"""What a study leaves behind: the best recipe as TOML, the trials as CSV, a summary as JSON, the plots, a report."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import tomli_w
from optuna.trial import FrozenTrial

from ductal import __version__
from ductal.files import write_text
from ductal.record import to_json
from ductal.training.recipe import Recipe
from ductal.tune.findings import Findings, chosen_by, figure_words, findings_of
from ductal.tune.judge import Comparison
from ductal.tune.optimism import Optimism
from ductal.tune.plots import draw_plots
from ductal.tune.report import write_report
from ductal.tune.storage import shown_url, storage_url
from ductal.tune.study import Study

BEST, TABLE, SUMMARY, REPORT, FIGURES = "best.toml", "trials.csv", "study.json", "report.html", "figures"


def write_results(study: Study) -> Findings:
    """Write best.toml, trials.csv, study.json, figures/ and report.html into the folder of the study.

    Raises:
        StorageError: the disk refused.
    """
    found = findings_of(study)
    write_text(study.folder / TABLE, found.trials.to_csv(index=False))
    toml = "" if found.recipe is None else header(study, found) + recipe_toml(found.recipe)
    if toml:
        write_text(study.folder / BEST, toml)
    write_text(study.folder / SUMMARY, to_json(summary(study, found)))
    pictures = draw_plots(study.optuna, study.folder / FIGURES, study.tuning.metric)
    write_report(study, found, toml, pictures, study.folder / REPORT)
    return found


def recipe_toml(recipe: Recipe) -> str:
    """A recipe file that `ductal.training.recipe_file.load_recipe` reads as exactly this recipe."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def header(study: Study, found: Findings) -> str:
    """The comment on top of the best recipe: which study, which value, on whom, and what it is worth."""
    best, info = found.best, study.bench.patients.cohort.info
    assert best is not None
    lines = [
        f"{study.recipe.name}, tuned by ductal {__version__}: trial {best.number} of {len(found.trials)} "
        f"of the study {study.tuning.study}.",
        f"Cohort {info.name}, fingerprint {info.fingerprint}, split {study.bench.patients.identity}.",
        f"{study.tuning.metric} {best.value:.4f} {chosen_by(study)}.",
    ]
    if found.chosen_on:
        lines.append(f"ROC AUC {figure_words(found.chosen_on.best)} over {found.chosen_on.patients} patients.")
    if found.judged:
        last = found.judged[-1]
        lines.append(f"Judged on {last.patients} validation patients: ROC AUC {figure_words(last.best)}.")
    else:
        lines.append("Chosen among these trials on these very patients, so the figure is optimistic.")
    if info.synthetic:
        lines.append("SYNTHETIC patches: no result.")
    return "".join(f"# {line}\n" for line in lines)


def summary(study: Study, found: Findings) -> dict[str, Any]:
    """The study in numbers, as study.json holds it."""
    tuning, info = study.tuning, study.bench.patients.cohort.info
    return {
        "study": tuning.study,
        "storage": shown_url(storage_url(study.folder, tuning.storage)),
        "recipe": study.recipe.name,
        "metric": tuning.metric,
        "pruner": tuning.pruner,
        "inner_folds": tuning.inner_folds,
        "seed": tuning.data.seed,
        "trials_asked_for": tuning.trials,
        "trials": Counter(found.trials.get("state", [])),
        "best": None if found.best is None else _trial(study, found.best),
        "shipped": None if found.first is None else _trial(study, found.first),
        "best_against_shipped_on_the_patients_that_chose": _dict(found.chosen_on),
        "judged_on_validation_patients": [asdict(each) for each in found.judged],
        "optimism": _dict(found.optimism),
        "space": study.space.as_json(),
        "cohort": info.model_dump(mode="json"),
        "split": study.bench.patients.identity,
        "ductal": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _trial(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    return {"trial": trial.number, "value": trial.value, "parameters": study.space.values(trial.params)}


def _dict(found: Comparison | Optimism | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
