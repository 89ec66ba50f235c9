"""The report of a study: one HTML file that opens anywhere, in the style of the project's other reports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ductal import __version__
from ductal.evaluation.report_model import flat, inline
from ductal.evaluation.tables import p_equals
from ductal.files import write_text
from ductal.tune.findings import Findings, chosen_by, figure_words
from ductal.tune.judge import Comparison
from ductal.tune.plots import SAYS
from ductal.tune.study import Study
from ductal.tune.trial import better

_SYNTHETIC = (
    "These patches were drawn by a program, not taken from patients. The figures show that the software works; they "
    "are no results about cancer."
)
_OPTIMISTIC = (
    "The best of many trials is partly the luckiest. These patients chose it, and in every training the epoch too: "
    "neither its figure nor its gain is an estimate for other patients."
)
_JUDGED = (
    "The validation patients had no part in choosing the trial. In the trainings that they judge they did choose the "
    "epoch, as in every run, which flatters both alike."
)
_FEW = "Fewer than ten finished trials: the sampler draws the first ten at random, so this was a random search."


def write_report(study: Study, found: Findings, toml: str, pictures: Mapping[str, Path], path: Path) -> None:
    """Write the report of a study.

    Args:
        study: the study.
        found: what it has found.
        toml: the best recipe; "" where there is none.
        pictures: see `ductal.tune.plots.draw_plots`.
        path: the file.

    Raises:
        StorageError: the disk refused.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loaders = [PackageLoader("ductal.tune", "templates"), PackageLoader("ductal.evaluation", "templates")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    write_text(path, environment.get_template("tuning.html.j2").render(_context(study, found, toml, pictures)))


def verdict(study: Study, found: Findings) -> str:
    """The result in plain words."""
    if found.best is None:
        return "No trial has finished, so there is nothing to choose from; the table says why."
    complete = int((found.trials["state"] == "complete").sum())
    text = f"Best of {complete} complete trials: trial {found.best.number}, {study.tuning.metric} "
    text += f"{found.best.value:.4f} {chosen_by(study)}."
    if found.first is not None and found.first.number == found.best.number:
        return f"{text} That is the recipe {study.recipe.name} as it was: no trial is better."
    if found.first is not None:
        text += f" The recipe it began from, {study.recipe.name}: {found.first.value:.4f}."
    if found.judged:
        text += f" On the validation patients: {_gain_words(found.judged[-1], study.recipe.name)}"
    return text


def warnings_of(study: Study, found: Findings) -> list[tuple[str, str]]:
    """(heading, sentence) for everything that limits what the figures may be used for."""
    warnings = []
    if study.bench.patients.cohort.info.synthetic:
        warnings.append(("SYNTHETIC", _SYNTHETIC))
    if not study.tuning.inner_folds:
        warnings.append(("Optimistic", " ".join(filter(None, [_OPTIMISTIC, _by_how_much(found)]))))
    elif found.judged:
        warnings.append(("What the judgement is worth", f"{_JUDGED} {_inner_against_outer(found)}".rstrip()))
        if len(found.judged) > 1:
            often = f"{len(found.judged)} times, once for each best trial. Each look invites choices that fit them."
            warnings.append(("The validation patients have judged more than once", often))
    settled = int(found.trials["state"].isin(("complete", "pruned")).sum()) if len(found.trials) else 0
    if settled < 10:
        warnings.append(("Few trials", _FEW))
    if found.trials.empty or len(found.trials) < study.tuning.trials:
        warnings.append(("Not finished", f"{len(found.trials)} of {study.tuning.trials} trials are there."))
    return warnings


def _by_how_much(found: Findings) -> str:
    each = found.optimism
    if each is None:
        return "By how much is not known here; --inner-folds would tell."
    return (
        f"Choosing anew on drawn patients and looking at those not drawn (Tsamardinos et al. 2018) gives "
        f"{each.expected:.4f} instead of {each.shown:.4f}: {each.shown - each.expected:+.4f} comes of choosing the "
        f"best of {each.trials} trials on {each.patients} patients. What choosing the epoch adds is not in that."
    )


def _inner_against_outer(found: Findings) -> str:
    last = found.judged[-1]
    if found.first is None or found.best is None or last.gain is None:
        return ""
    inner = float(found.best.value or 0) - float(found.first.value or 0)
    return (
        f"The gain was {inner:+.4f} on the inner folds that chose, and is {last.gain[0]:+.4f} on these patients: "
        f"{inner - last.gain[0]:+.4f} of it was optimism, or chance."
    )


def _gain_words(found: Comparison, recipe: str) -> str:
    text = f"ROC AUC {figure_words(found.best)}"
    if found.shipped is None or found.gain is None:
        return f"{text}."
    text += f" against {figure_words(found.shipped)} of {recipe}, {figure_words(found.gain[:3], '+')}"
    return f"{text}, p {p_equals(found.gain[3])}." if found.gain[1] is not None else f"{text}."


def _context(study: Study, found: Findings, toml: str, pictures: Mapping[str, Path]) -> dict[str, Any]:
    tuning, patients = study.tuning, study.bench.patients
    comparisons = [("On the patients that chose", found.chosen_on)] if found.chosen_on else []
    comparisons += [("On validation patients that chose nothing", each) for each in found.judged[-1:]]
    return {
        "title": f"Tuning of {study.recipe.name}",
        "verdict": verdict(study, found),
        "warnings": warnings_of(study, found),
        "comparisons": [(where, _gain_words(each, study.recipe.name), each) for where, each in comparisons],
        "figures": [(*SAYS[name], inline(path)) for name, path in pictures.items()],
        "trials": _trial_table(study, found),
        "best": toml,
        "cohort": patients.cohort.info.model_dump(mode="json"),
        "counts": patients.outer.split.count(patients.cohort),
        "settings": flat(
            {
                "metric": tuning.metric, "chosen": chosen_by(study), "pruner": tuning.pruner, "trials": tuning.trials,
                "seed": tuning.data.seed, "space": study.space.as_json(), "split": patients.identity,
            }
        ),
        "version": __version__,
        "written": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def _trial_table(study: Study, found: Findings) -> dict[str, Any]:
    """All trials, the best first, those without a value last."""
    if found.trials.empty:
        return {"headings": ["Trial"], "rows": [], "says": ""}
    fixed = ["trial", "state", "value", "steps", "seconds"]
    keys = [name for name in found.trials if name not in (*fixed, "last_reported", "problem", "worker")]
    order = {number: place for place, number in enumerate(_ranked(study, found))}
    rows = sorted(found.trials.to_dict("records"), key=lambda row: order[row["trial"]])
    return {
        "headings": ["Trial", "State", "Value", "Steps", "Time", *keys],
        "rows": [
            [
                row["trial"],
                row["state"] + (f": {row['problem']}" if row["problem"] else ""),
                _number(row["value"], "{:.4f}"),
                row["steps"],
                _number(row["seconds"], "{:.0f} s"),
                *(_number(row[key], "{:.3g}") for key in keys),
            ]
            for row in rows
        ],
        "says": "The best first. Trials that a kill interrupted are not listed: others have repeated them.",
    }


def _ranked(study: Study, found: Findings) -> list[int]:
    low_is_good = better(study.tuning.metric) is min
    ordered = found.trials.sort_values(["value", "trial"], ascending=[low_is_good, True], na_position="last")
    return [int(number) for number in ordered["trial"]]


def _number(value: Any, pattern: str) -> str:
    if isinstance(value, float):
        return "" if value != value else pattern.format(value)  # nan is not equal to itself
    return str(value)
