"""The whole way in one call: cohort, split, audit, controls, recipes, evaluation, leaderboard, report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from ductal.data.audit import AuditReport, audit_split, refuse_leaks
from ductal.data.cohort import INFO, Cohort
from ductal.data.split import Split, make_split
from ductal.data.store import prepare
from ductal.data.synthetic import make_synthetic
from ductal.evaluation.compare import leaderboard, to_csv, to_markdown, to_rich_table
from ductal.evaluation.controls import CONTROLS
from ductal.evaluation.evaluate import evaluate_control
from ductal.evaluation.report import write_comparison_report
from ductal.files import write_text
from ductal.training.isolated import train_isolated
from ductal.training.recipe import DEFAULT_RECIPES, Recipe, load_recipe

SYNTHETIC_PATIENTS, SYNTHETIC_PATCHES = 24, 40


@dataclass(frozen=True)
class Plan:
    """What `run_experiment` shall do.

    Attributes:
        source: an archive, a folder, or a prepared cohort; None makes the synthetic cohort.
        out: the folder for everything that is written.
        recipes: names or paths of recipes, trained in this order.
        split: name of the split (see `ductal.data.split.make_split`).
        ratios, fold, folds: settings of the "random" and "kfold" splits.
        profile: "quick" (short stages, small inputs) or "full"; None is quick for the synthetic
            cohort and full for real patches.
        seed: of the selection, the split and the training.
        patients, limit_per_class: the declared selection (see `ductal.data.store.prepare`).
        max_epochs: at most so many epochs a stage; None leaves the recipe alone.
        patients_csv: patient of each file, for class folders.
        weights_file: ImageNet weights of VGG16 to use.
    """

    source: Path | None = None
    out: Path = Path("ductal-out")
    recipes: tuple[str, ...] = DEFAULT_RECIPES
    split: str = "random"
    ratios: tuple[float, float, float] = (0.7, 0.15, 0.15)
    fold: int = 0
    folds: int = 5
    profile: Literal["quick", "full"] | None = None
    seed: int = 42
    patients: int | None = None
    limit_per_class: int | None = None
    max_epochs: int | None = None
    patients_csv: Path | None = None
    weights_file: Path | None = None

    def settled_profile(self) -> Literal["quick", "full"]:
        """The profile that is used."""
        return self.profile or ("quick" if self.source is None else "full")


@dataclass(frozen=True)
class Result:
    """Where the results of `run_experiment` are."""

    report: Path
    runs: list[Path]
    reused: list[str] = field(default_factory=list)


def run_experiment(plan: Plan, console: Console | None = None) -> Result:
    """Carry out `plan`. Recipes that an earlier, interrupted call finished with the same settings are kept.

    Raises:
        DuctalError: any of its kinds; what was finished stays in `plan.out`.
    """
    console = console or Console(quiet=True)
    started = time.perf_counter()
    recipes = load_recipes(plan.recipes, plan.settled_profile(), plan.max_epochs)
    cohort = open_cohort(plan, console)
    split = make_split(
        cohort, plan.split, seed=plan.seed, ratios=plan.ratios, fold=plan.fold, folds=plan.folds
    )
    audit = audited(cohort, split, console)
    split.save(plan.out / "split.json")
    runs, reused = [], []
    for recipe in recipes:
        folder = plan.out / "runs" / recipe.name
        if is_finished(folder, recipe, cohort, split, plan.seed):
            console.print(f"[bold]{recipe.name}[/]  finished earlier with the same settings, kept")
            reused.append(recipe.name)
        else:
            console.print(f"[bold]{recipe.name}[/]  {recipe.title}")
            train_isolated(
                recipe, cohort.folder, split, folder,
                audit=audit, seed=plan.seed, profile=plan.settled_profile(), weights_file=plan.weights_file,
            )  # fmt: skip
        runs.append(folder)
    console.print("[bold]controls[/]  " + ", ".join(CONTROLS))
    for name in CONTROLS:
        folder = plan.out / "runs" / name
        runs.append(evaluate_control(name, cohort, split, audit, folder, seed=plan.seed))
    report = summarise(plan.out, runs, console)
    console.print(f"Done in {(time.perf_counter() - started) / 60:.1f} minutes.")
    return Result(report, runs, reused)


def load_recipes(
    names: tuple[str, ...], profile: Literal["quick", "full"], max_epochs: int | None = None
) -> list[Recipe]:
    """Load and adapt recipes, so that a mistake in the last is found before the first trains."""
    recipes = [load_recipe(name).for_profile(profile) for name in names]
    if max_epochs is not None:
        recipes = [
            recipe.model_copy(
                update={
                    "stages": [
                        stage.model_copy(update={"epochs": min(stage.epochs, max_epochs)})
                        for stage in recipe.stages
                    ]
                }
            )
            for recipe in recipes
        ]
    return recipes


def open_cohort(plan: Plan, console: Console) -> Cohort:
    """The cohort of `plan`: opened if it is prepared already, else prepared into ``<out>/cohort``."""
    source = plan.source
    if source is not None and (source / INFO).is_file():
        return Cohort.open(source)
    if source is None:
        source = plan.out / "synthetic.zip"
        console.print("No source given: making the [bold]synthetic[/] cohort. Its figures are not results.")
        make_synthetic(source, patients=SYNTHETIC_PATIENTS, patches_per_patient=SYNTHETIC_PATCHES, seed=plan.seed)
    with console.status("Reading the patches"):
        cohort = prepare(
            source,
            plan.out / "cohort",
            patients=plan.patients,
            limit_per_class=plan.limit_per_class,
            seed=plan.seed,
            patients_csv=plan.patients_csv,
        )
    describe_cohort(cohort, console)
    return cohort


def describe_cohort(cohort: Cohort, console: Console) -> None:
    """Print what a cohort holds and what was left out."""
    info = cohort.info
    console.print(
        f"{info.n_patches:,} patches of {info.n_patients} patients, "
        f"{info.n_positive:,} IDC ({info.n_positive / max(info.n_patches, 1):.1%})"
    )
    if info.quarantined:
        kinds = ", ".join(f"{count} {reason}" for reason, count in info.quarantined.items())
        console.print(f"Quarantined by rule: {kinds}")
    for note in info.notes:
        console.print(f"[yellow]Note:[/] {note}", highlight=False)


def audited(cohort: Cohort, split: Split, console: Console) -> AuditReport:
    """Audit a split, print the findings, and refuse it when it leaks. Raises LeakError."""
    counts = split.count(cohort)
    console.print(
        f"Split {split.name}: "
        + ", ".join(f"{part} {c['patients']} patients / {c['patches']:,} patches" for part, c in counts.items()),
        soft_wrap=True,
    )
    for note in split.notes:
        console.print(f"[yellow]Note:[/] {note}", highlight=False)
    with console.status("Auditing the split for leaks"):
        audit = audit_split(cohort, split)
    console.print(audit.text(), highlight=False, markup=False, soft_wrap=True)
    refuse_leaks(audit)
    return audit


def is_finished(folder: Path, recipe: Recipe, cohort: Cohort, split: Split, seed: int) -> bool:
    """Whether `folder` holds a complete, evaluated run of exactly these settings."""
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        (folder / "metrics.json").is_file()
        and record["recipe"] == recipe.model_dump(mode="json")
        and record["cohort"]["fingerprint"] == cohort.info.fingerprint
        and record["cohort"]["selection"] == cohort.info.selection
        and record["split"]["id"] == split.identity
        and record["seed"] == seed
    )


def summarise(out: Path, runs: list[Path], console: Console, *, allow_different: bool = False) -> Path:
    """Write leaderboard.csv, leaderboard.md and report.html of `runs` into `out`; returns the report."""
    rows = leaderboard(runs, allow_different=allow_different)
    write_text(out / "leaderboard.csv", to_csv(rows))
    write_text(out / "leaderboard.md", to_markdown(rows))
    report = write_comparison_report(out, runs, "Comparison of models", allow_different=allow_different)
    console.print(to_rich_table(rows))
    console.print(f"Report: {report}", highlight=False, soft_wrap=True)
    return report
