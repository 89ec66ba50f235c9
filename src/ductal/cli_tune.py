"""The command that searches for better settings of a recipe."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ductal.cli_options import (
    Fold,
    Folds,
    Limit,
    MaxEpochs,
    Out,
    Patients,
    PatientsCsv,
    Ratios,
    RayAddress,
    RayCpus,
    Seed,
    SplitFile,
    SplitOption,
    WeightsFile,
    check_source,
    ray_cpus_in,
    split_in,
)
from ductal.console import make_console
from ductal.errors import RunError

tuning = typer.Typer()


class MetricChoice(StrEnum):
    """Figures that `--metric` takes: those of a run's history."""

    val_auc = "val_auc"
    val_balanced_accuracy = "val_balanced_accuracy"
    val_accuracy = "val_accuracy"
    val_loss = "val_loss"


class PrunerChoice(StrEnum):
    """Rules that `--pruner` takes."""

    median = "median"
    hyperband = "hyperband"
    none = "none"


@tuning.command()
def tune(
    source: Annotated[Path, typer.Argument(help="Archive, folder or prepared cohort.")],
    recipe: Annotated[str, typer.Option(help="Recipe that varies: a name or a .toml file.")] = "vgg16-frozen",
    space: Annotated[
        str | None,
        typer.Option(help="Search space: a .toml file, or the name of a shipped one; that of the recipe by default."),
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials of the finished study, whoever runs them.", min=1)] = 40,
    metric: Annotated[
        MetricChoice, typer.Option(help="What is best, on validation patients at the kept epoch.")
    ] = MetricChoice.val_auc,
    pruner: Annotated[
        PrunerChoice, typer.Option(help="Which rule ends hopeless trials early.")
    ] = PrunerChoice.median,
    inner_folds: Annotated[
        int | None,
        typer.Option(
            help="Choose on so many folds of the training patients; the validation patients judge once.", min=2
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Database for workers on several machines, such as postgresql+psycopg://user@host/name; "
            "by default a file in OUT.",
            envvar="DUCTAL_TUNE_STORAGE",
        ),
    ] = None,
    study: Annotated[str, typer.Option(help="Name of the study in the database.")] = "ductal",
    timeout: Annotated[
        float | None, typer.Option(help="Begin no trial after this many minutes.", metavar="MINUTES", min=0)
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            help="Draw each trial knowing those this many places before it, so that as many can run at once with "
            "--ray; 1 by default, with --ray what the cluster has room for.",
            min=1,
        ),
    ] = None,
    ray: RayAddress = None,
    ray_cpus: RayCpus = None,
    split: SplitOption = None,
    split_file: SplitFile = None,
    ratios: Ratios = None,
    fold: Fold = None,
    folds: Folds = None,
    out: Out = Path("ductal-tune"),
    seed: Seed = 42,
    patients: Patients = None,
    limit_per_class: Limit = None,
    max_epochs: MaxEpochs = None,
    patients_csv: PatientsCsv = None,
    weights_file: WeightsFile = None,
) -> None:
    """Search for better settings of a recipe; the best are written as OUT/best.toml. No test patient is opened.

    The same command goes on where it was interrupted, and joins a study that others work on.
    """
    check_source(source)
    _check_installed()
    from ductal.experiment import Plan
    from ductal.tune.search import tune as search
    from ductal.tune.study import Tuning

    cpus = ray_cpus_in(ray, ray_cpus)
    name, divided = split_in(split, split_file, ratios, fold, folds)
    data = Plan(
        source=source, out=out, recipes=(recipe,), split=name, split_file=split_file, **divided, seed=seed,
        patients=patients, limit_per_class=limit_per_class, max_epochs=max_epochs, patients_csv=patients_csv,
        weights_file=weights_file,
    )  # fmt: skip
    tuning = Tuning(
        data, space, trials, metric.value, pruner.value, inner_folds, storage, study, timeout, at_once
    )  # fmt: skip
    if ray is None:
        search(tuning, make_console())
        return
    from ductal.cluster.trials import tune_on

    tune_on(ray, tuning, make_console(), cpus=cpus)


def _check_installed() -> None:
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in ("optuna", "tomli_w")):
        raise RunError("Tuning needs Optuna, which is not installed: pip install 'ductal[tune]'.")
