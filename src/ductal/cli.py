"""The command line: thin over the Python API; heavy imports wait until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ductal import __version__
from ductal.cli_data import data
from ductal.cli_neighbours import neighbours
from ductal.cli_options import (
    D4,
    Commands,
    Deterministic,
    Engine,
    EngineChoice,
    Fast,
    Fold,
    Folds,
    Fresh,
    Gpus,
    InnerFold,
    Limit,
    MaxEpochs,
    Out,
    Patients,
    PatientsCsv,
    Profile,
    Ratios,
    RunFolder,
    Seed,
    Source,
    SplitFile,
    SplitOption,
    Track,
    TrackingUri,
    WeightsFile,
    check_source,
    inner_fold_in,
    names_in,
    split_in,
    tracking_in,
)
from ductal.cli_run_data import data_of
from ductal.cli_serve import server
from ductal.cli_tools import tools
from ductal.cli_tune import tuning
from ductal.console import bar, make_console, say
from ductal.errors import RunError

app = typer.Typer(
    cls=Commands,
    help="From the IDC breast-histology archive to trained, compared and honestly evaluated models. "
    "Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 2 wrong usage, 3 unusable data, 4 recipe mistake, 5 leaking split or closed "
    "test patients, 6 no pretrained weights, 7 download failed, 8 disk refused, 9 unusable run folder, "
    "10 no export, 11 another command writes the same folder, 12 unusable cluster, 130 interrupted; "
    "1 anything unforeseen.",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"ductal {__version__}")
        raise typer.Exit


@app.command()
def run(
    source: Annotated[
        Path | None,
        typer.Argument(help="Archive, folder or prepared cohort; without one, the synthetic cohort."),
    ] = None,
    recipes: Annotated[
        str | None,
        typer.Option(help="Recipes to train, separated by commas: names or .toml files; all six by default."),
    ] = None,
    split: SplitOption = None,
    split_file: SplitFile = None,
    ratios: Ratios = None,
    fold: Fold = None,
    folds: Folds = None,
    inner_fold: InnerFold = None,
    profile: Annotated[
        Profile | None, typer.Option(help="quick or full; quick without a source, else full.")
    ] = None,
    out: Out = Path("ductal-out"),
    seed: Seed = 42,
    patients: Patients = None,
    limit_per_class: Limit = None,
    max_epochs: MaxEpochs = None,
    patients_csv: PatientsCsv = None,
    weights_file: WeightsFile = None,
    fresh: Fresh = False,
    track: Track = None,
    tracking_uri: TrackingUri = None,
    gpus: Gpus = None,
    deterministic: Deterministic = False,
) -> None:
    """Do it all: prepare, split, audit, train, evaluate, compare, report."""
    from ductal.experiment import Plan, run_experiment
    from ductal.training.recipe import DEFAULT_RECIPES

    name, divided = split_in(split, split_file, ratios, fold, folds)
    run_experiment(
        Plan(
            source=source,
            out=out,
            recipes=names_in(recipes) or DEFAULT_RECIPES,
            split=name,
            split_file=split_file,
            **divided,
            inner_fold=inner_fold_in(inner_fold),
            profile=profile.value if profile else None,
            seed=seed,
            patients=patients,
            limit_per_class=limit_per_class,
            max_epochs=max_epochs,
            patients_csv=patients_csv,
            weights_file=weights_file,
            fresh=fresh,
            tracking=tracking_in(track, tracking_uri, out),
            gpus=gpus,
            deterministic=deterministic,
        ),
        make_console(),
    )


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a .toml file.")],
    cohort: Annotated[Path, typer.Option("--cohort", help="A prepared cohort.")] = Path("cohort"),
    split: SplitOption = None,
    split_file: SplitFile = None,
    ratios: Ratios = None,
    fold: Fold = None,
    folds: Folds = None,
    inner_fold: InnerFold = None,
    profile: Annotated[Profile, typer.Option(help="quick or full.")] = Profile.full,
    out: Out = Path("ductal-out"),
    seed: Seed = 42,
    max_epochs: MaxEpochs = None,
    weights_file: WeightsFile = None,
    fresh: Fresh = False,
    track: Track = None,
    tracking_uri: TrackingUri = None,
    gpus: Gpus = None,
    deterministic: Deterministic = False,
) -> None:
    """Train one recipe into OUT/runs/NAME, replacing a run that is there; no test patient is opened."""
    from ductal.data.cohort import Cohort
    from ductal.experiment import Plan, load_recipes
    from ductal.experiment_data import split_audited
    from ductal.training.isolated import train_isolated

    name, divided = split_in(split, split_file, ratios, fold, folds)
    inner = inner_fold_in(inner_fold)  # before anything is read
    tracking = tracking_in(track, tracking_uri, out)
    console = make_console()
    settings = load_recipes((recipe,), profile.value, max_epochs, gpus)[0]
    patches = Cohort.open(cohort)
    plan = Plan(recipes=(recipe,), split=name, split_file=split_file, seed=seed, **divided, inner_fold=inner)
    parts, audit = split_audited(plan, patches, console)
    folder = train_isolated(
        settings, patches.folder, parts, out / "runs" / settings.name,
        audit=audit, seed=seed, profile=profile.value, weights_file=weights_file, final=False,
        fresh=fresh, tracking=tracking, gpus=gpus, deterministic=deterministic,
    )  # fmt: skip
    say(console, f"Run: {folder}. For its report: ductal evaluate {folder}")


@app.command()
def evaluate(
    run_folder: RunFolder,
    cohort: Annotated[Path | None, typer.Option(help="The cohort, if it has moved since the training.")] = None,
    threshold_rule: Annotated[
        str | None,
        typer.Option(
            help="Choose the threshold anew, on validation patients: balanced_accuracy, sensitivity:0.95 or cost:5 "
            "(a missed cancer as bad as 5 false alarms)."
        ),
    ] = None,
    fast: Fast = False,
) -> None:
    """Final evaluation of a run: metrics, figures and report; opens the test patients and counts it."""
    from ductal.evaluation.compare import leaderboard
    from ductal.evaluation.decision import ThresholdRule
    from ductal.evaluation.evaluate import evaluate as evaluate_run
    from ductal.evaluation.tables import to_rich_table

    if threshold_rule is not None:
        ThresholdRule.parse(threshold_rule)  # before anything is read
    console = make_console()
    patches, split = data_of(run_folder, cohort)
    with bar(console, "Predicting") as progress:
        evaluate_run(run_folder, patches, split, threshold_rule=threshold_rule, fast=fast, progress=progress)
    console.print(to_rich_table(leaderboard([run_folder])))
    say(console, f"Report: {run_folder / 'report.html'}")


@app.command()
def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one cohort and split, or of its inner folds.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder to write, such as ductal-out/runs/ensemble.")],
    cohort: Annotated[Path | None, typer.Option(help="The cohort, if it has moved since the training.")] = None,
    d4: D4 = False,
    threshold: Annotated[
        str, typer.Option(help="Rule on validation patients: balanced_accuracy, sensitivity:0.95 or cost:5.")
    ] = "balanced_accuracy",
    fast: Fast = False,
) -> None:
    """Average several runs, or one over flips and turns, as a run of its own; no test patient is opened."""
    from ductal.evaluation.decision import ThresholdRule
    from ductal.evaluation.ensemble import combine

    ThresholdRule.parse(threshold)  # before anything is read
    console = make_console()
    patches, _ = data_of(runs[0], cohort)
    with bar(console, "Predicting") as progress:
        combine(runs, patches, out, d4=d4, rule=threshold, fast=fast, progress=progress)
    say(console, f"Run: {out}. For its report: ductal evaluate {out}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or a folder that holds runs/.")],
    out: Out = Path("ductal-out"),
    allow_different: Annotated[
        bool, typer.Option("--allow-different", help="Compare although cohorts or splits differ; marked in a column.")
    ] = False,
) -> None:
    """Leaderboard of runs: table, leaderboard.csv, leaderboard.md and one report.html."""
    from ductal.experiment import compare as compare_runs

    folders: list[Path] = []
    for path in runs:
        inside = sorted(item.parent for item in (path / "runs").glob("*/run.json"))
        if not inside and not (path / "run.json").is_file():
            raise RunError(f"{path} is no run folder and holds no runs/. Name run folders, or an --out folder.")
        folders += inside or [path]
    compare_runs(out, folders, make_console(), allow_different=allow_different)


@app.command()
def predict(
    run_folder: RunFolder,
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="CSV to write.")] = Path("predictions.csv"),
    d4: D4 = False,
    engine: Engine = EngineChoice.auto,
) -> None:
    """Probability of IDC for patches, labelled or not, as a CSV file."""
    from ductal.inference.predict_files import predict_source

    check_source(source)
    console = make_console()
    with bar(console, "Predicting") as progress:
        table = predict_source(run_folder, source, out, d4=d4, engine=engine.value, progress=progress)
    called = int(table["cancer"].sum())
    skipped = int((table["problem"] != "").sum())
    say(console, f"{len(table):,} images: {called:,} called cancer, {skipped:,} not usable. Written to {out}")


app.add_typer(data)
app.add_typer(tools)
app.add_typer(neighbours)
app.add_typer(server)
app.add_typer(tuning)


def main() -> None:
    """Entry point of the command `ductal`."""
    app()
