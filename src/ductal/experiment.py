"""The whole way in one call: cohort, split, audit, controls, recipes, evaluation, leaderboard, report."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from rich.console import Console

from ductal.console import say
from ductal.data.audit import AuditReport
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import check_split_settings
from ductal.errors import DuctalError, RecipeError, StorageError
from ductal.evaluation.compare import leaderboard
from ductal.evaluation.controls import CONTROLS
from ductal.evaluation.evaluate import evaluate_control
from ductal.evaluation.report import write_comparison_report
from ductal.evaluation.tables import to_csv, to_markdown, to_rich_table
from ductal.experiment_data import open_cohort, split_audited
from ductal.files import sole_writer, write_text
from ductal.loading.links import refuse_links
from ductal.loading.records import read_json
from ductal.tracking.options import Tracking
from ductal.training.checkpoint import checkpoint_folder
from ductal.training.combinations import check_shares, without_idle
from ductal.training.isolated import train_isolated
from ductal.training.recipe import DEFAULT_RECIPES, Recipe
from ductal.training.recipe_file import load_recipe

CLAIM = "experiment"  # what is locked in `--out`, which need not exist and may be the working directory
FEATURES = ".features"  # beside the runs; an interrupted call leaves it for the next one


@dataclass(frozen=True)
class Plan:
    """What `run_experiment` shall do.

    Attributes:
        source: an archive, a folder, or a prepared cohort; None makes the synthetic cohort.
        out: the folder for everything that is written.
        recipes: names or paths of recipes, trained in this order.
        split: name of the split (see `ductal.data.splitting.make_split`).
        split_file: a split of one's own instead, as JSON (see `ductal.data.split.Split`).
        ratios, fold, folds: settings of the "random" and "kfold" splits.
        inner_fold: (k, n) divides the training and validation patients anew into n folds, the k-th of which (from 0)
            is validation; test patients stay. For `ductal.evaluation.ensemble.combine`.
        profile: "quick" (short stages, small inputs) or "full"; None is quick for the synthetic
            cohort and full for real patches.
        seed: of the selection, the split and the training.
        patients, limit_per_class: the declared selection (see `ductal.data.store.prepare`).
        max_epochs: at most so many epochs a stage; None leaves the recipe alone.
        patients_csv: patient of each file, for class folders.
        weights_file: ImageNet weights to use instead of those the resolver finds.
        fresh: train all recipes from their first epoch: use no run and no checkpoint of an earlier call.
        tracking: who else is told of each training.
        gpus: graphics processors that share each batch; None is one device.
        deterministic: see `ductal.training.deterministic`; runs that were not trained so are trained again.
    """

    source: Path | None = None
    out: Path = Path("ductal-out")
    recipes: tuple[str, ...] = DEFAULT_RECIPES
    split: str = "random"
    split_file: Path | None = None
    ratios: tuple[float, float, float] = (0.7, 0.15, 0.15)
    fold: int = 0
    folds: int = 5
    inner_fold: tuple[int, int] | None = None
    profile: Literal["quick", "full"] | None = None
    seed: int = 42
    patients: int | None = None
    limit_per_class: int | None = None
    max_epochs: int | None = None
    patients_csv: Path | None = None
    weights_file: Path | None = None
    fresh: bool = False
    tracking: Tracking | None = None
    gpus: int | None = None
    deterministic: bool = False

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
    """Carry out `plan`. Recipes that an earlier, interrupted call finished with the same settings are kept, and
    the one that it was training is continued.

    A recipe that fails does not keep the others from their turn; after the report of those that finished,
    the first failure is raised.

    Raises:
        DuctalError: any of its kinds; what was finished stays in `plan.out`. BusyError: another call works there.
    """
    console = console or Console(quiet=True)
    recipes = load_recipes(plan.recipes, plan.settled_profile(), plan.max_epochs, plan.gpus)
    check_split_settings(plan.split, plan.ratios, plan.fold, plan.folds)
    if plan.split_file:
        Split.load(plan.split_file)  # a mistake in it should not wait for the cohort
    with sole_writer(plan.out / CLAIM):
        return _carry_out(plan, recipes, console)


def _carry_out(plan: Plan, recipes: list[Recipe], console: Console) -> Result:
    started = time.perf_counter()
    cohort = open_cohort(plan, console)
    split, audit = split_audited(plan, cohort, console)
    split.save(plan.out / "split.json")
    runs, reused = [], []
    failures: list[DuctalError] = []
    for number, recipe in enumerate(recipes):
        folder = plan.out / "runs" / recipe.name
        try:
            if _train_or_keep(plan, recipe, recipes[number + 1 :], cohort, split, audit, console):
                reused.append(recipe.name)
            runs.append(folder)
        except DuctalError as error:
            failures.append(error)
            if len(recipes) > 1:
                say(console, f"  {recipe.name} failed: {error}")
            if isinstance(error, StorageError):  # the others would meet the same disk
                break
    shutil.rmtree(plan.out / FEATURES, ignore_errors=True)
    if failures and not runs:
        raise failures[0]
    for name in CONTROLS:
        runs.append(folder := plan.out / "runs" / name)
        settings = {"name": name, "title": CONTROLS[name].says}
        if not is_finished(folder, settings, cohort, split, plan.seed):
            with console.status(f"Control model {name}"):
                evaluate_control(name, cohort, split, audit, folder, seed=plan.seed)
    say(console, f"Controls: {', '.join(CONTROLS)}")
    report = summarise(plan.out, runs, console)
    say(console, f"Done in {(time.perf_counter() - started) / 60:.1f} minutes.")
    if failures:
        raise failures[0]
    return Result(report, runs, reused)


def _train_or_keep(
    plan: Plan, recipe: Recipe, others: list[Recipe], cohort: Cohort, split: Split, audit: AuditReport,
    console: Console,
) -> bool:  # fmt: skip
    """Bring the run of `recipe` to its end from where an earlier call left it; True if that was the end."""

    def is_done(wanted: Recipe) -> bool:
        weights_file = plan.weights_file if wanted.weights == "imagenet" else None
        return is_trained(
            plan.out / "runs" / wanted.name, wanted.model_dump(mode="json"), cohort, split, plan.seed, weights_file,
            deterministic=plan.deterministic,
        )  # fmt: skip

    folder = plan.out / "runs" / recipe.name
    trained = not plan.fresh and is_done(recipe)
    if trained and (folder / "report.html").is_file():  # what an evaluation writes last
        shutil.rmtree(checkpoint_folder(folder), ignore_errors=True)  # if it was killed just after the run was whole
        say(console, f"{recipe.name}: finished earlier with the same settings, kept")
        return True
    say(console, f"{recipe.name}: {recipe.title}" + (", trained earlier, now evaluated" if trained else ""))
    train_isolated(
        recipe, cohort.folder, split, folder,
        audit=audit, seed=plan.seed, profile=plan.settled_profile(), weights_file=plan.weights_file, trained=trained,
        features_folder=plan.out / FEATURES, fresh=plan.fresh, deterministic=plan.deterministic,
        tracking=plan.tracking, gpus=plan.gpus,
        later=tuple(other for other in others if plan.fresh or not is_done(other)),
    )  # fmt: skip
    return False


def load_recipes(
    names: tuple[str, ...], profile: Literal["quick", "full"], max_epochs: int | None = None, gpus: int | None = None
) -> list[Recipe]:
    """Load and adapt recipes, so that a mistake in the last is found before the first trains.

    Raises:
        RecipeError: the mistakes of all of them, batches that `gpus` cannot share too; or two would write one run.
    """
    recipes, mistakes = [], []
    for name in names:
        try:
            recipes.append(_shortened(load_recipe(name).for_profile(profile), max_epochs))
            check_shares(recipes[-1], gpus)
        except RecipeError as error:
            mistakes.append(str(error))
    if mistakes:
        raise RecipeError("\n".join(mistakes))
    for name, count in Counter([*(recipe.name for recipe in recipes), *CONTROLS]).items():
        if count > 1:
            raise RecipeError(
                f"Two models would be called {name} and write the same run folder. Name each recipe once, "
                f"and change the name in a recipe of your own; {', '.join(CONTROLS)} are taken by the controls."
            )
    return recipes


def _shortened(recipe: Recipe, max_epochs: int | None) -> Recipe:
    if max_epochs is None:
        return recipe
    stages = [stage.model_copy(update={"epochs": min(stage.epochs, max_epochs)}) for stage in recipe.stages]
    return recipe.model_copy(update={"stages": stages})


def is_trained(
    folder: Path,
    settings: dict[str, Any],
    cohort: Cohort,
    split: Split,
    seed: int,
    weights_file: Path | None = None,
    *,
    deterministic: bool = False,
) -> bool:
    """Whether `folder` holds a complete run of exactly this recipe (as JSON), cohort, split and seed.

    With `deterministic` it must have been trained so; without, it may. A folder that holds a link is none.
    """
    try:
        refuse_links(folder)
        record = read_json(folder / "run.json")
        return bool(
            _same_recipe(record["recipe"], settings)
            and record["cohort"]["fingerprint"] == cohort.info.fingerprint
            and record["cohort"]["selection"] == cohort.info.selection
            and record["split"]["id"] == split.identity
            and record["seed"] == seed
            and (record.get("deterministic") is True or not deterministic)
            and _same_weights(record, weights_file)
        )
    except (OSError, ValueError, KeyError, TypeError):  # not there (an encoder, too), or not what is written here
        return False


def _same_recipe(recorded: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether they train the same: a setting that is younger than the record had its default, and one that has no
    effect, which older recipes may hold, does not count.
    """
    with suppress(ValidationError):  # not what this version writes
        return Recipe.model_validate(without_idle(recorded)).model_dump(mode="json") == settings
    fields = Recipe.model_fields
    known = {name: recorded.get(name, fields[name].default) for name in settings if name in fields}
    return recorded.keys() <= settings.keys() and known == settings


def _same_weights(record: dict[str, Any], weights_file: Path | None) -> bool:
    """Whether the run started from what a training would start from now: no file, or the one of this name.

    An encoder must be the very same.
    """
    if record["recipe"].get("weights") == "random":
        return True
    used: str = record["weights"]
    if record["recipe"].get("encoder"):
        from ductal.training.weights import encoder_origin

        return used == encoder_origin(Recipe.model_validate(without_idle(record["recipe"])))
    return used == f"file {weights_file.name}" if weights_file else not used.startswith("file ")


def is_finished(folder: Path, settings: dict[str, Any], cohort: Cohort, split: Split, seed: int) -> bool:
    """Whether `folder` is trained (see `is_trained`) and evaluated."""
    return (folder / "metrics.json").is_file() and is_trained(folder, settings, cohort, split, seed)


def compare(out: Path, runs: list[Path], console: Console, *, allow_different: bool = False) -> Path:
    """`summarise`, unless another command writes into `out`.

    Raises:
        RunError: the runs cannot be compared. StorageError, BusyError: `out` cannot be written.
    """
    with sole_writer(out / CLAIM):
        return summarise(out, runs, console, allow_different=allow_different)


def summarise(out: Path, runs: list[Path], console: Console, *, allow_different: bool = False) -> Path:
    """Write leaderboard.csv, leaderboard.md and report.html of `runs` into `out`; returns the report."""
    rows = leaderboard(runs, allow_different=allow_different)
    write_text(out / "leaderboard.csv", to_csv(rows))
    write_text(out / "leaderboard.md", to_markdown(rows))
    report = write_comparison_report(out, runs, "Comparison of models", allow_different=allow_different)
    console.print(to_rich_table(rows))
    say(console, f"Report: {report}")
    return report
