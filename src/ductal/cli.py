"""The command line: thin over the Python API; heavy imports wait until a command runs."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ductal import __version__
from ductal.errors import DuctalError, RunError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from ductal.data.cohort import Cohort
    from ductal.data.split import Split

INTERRUPTED = 130

app = typer.Typer(
    help="From the IDC breast-histology archive to trained, compared and honestly evaluated models. "
    "Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 2 wrong usage, 3 unusable data, 4 recipe mistake, 5 leaking split or closed "
    "test patients, 6 no pretrained weights, 7 download failed, 8 disk refused, 9 unusable run folder, "
    "130 interrupted; 1 anything unforeseen.",
)


class SplitName(StrEnum):
    """Splits that `--split` takes."""

    published = "published"
    published_extra = "published+extra"
    random = "random"
    kfold = "kfold"


class Profile(StrEnum):
    """Profiles that `--profile` takes."""

    quick = "quick"
    full = "full"


Out = Annotated[Path, typer.Option("--out", help="Folder for everything that is written.")]
Seed = Annotated[int, typer.Option(help="Seed of selection, split, weights, order and augmentation.", min=0)]
Patients = Annotated[int | None, typer.Option(help="Keep this many patients, drawn at random.", min=1)]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit-per-class",
        min=1,
        help="Train on at most this many patches per class of each patient, drawn at random; "
        "metrics still use all patches.",
    ),
]
PatientsCsv = Annotated[
    Path | None, typer.Option(help="CSV with columns file,patient for class folders without genuine names.")
]
SplitOption = Annotated[SplitName, typer.Option("--split", help="How patients are divided.")]
Ratios = Annotated[
    str, typer.Option(help="Train,validation,test shares of the random split, for instance 0.7,0.15,0.15.")
]
Fold = Annotated[int, typer.Option(help="Test fold of the kfold split, from 0.", min=0)]
Folds = Annotated[int, typer.Option(help="Number of folds of the kfold split.", min=3)]
MaxEpochs = Annotated[int | None, typer.Option(help="At most this many epochs in each stage.", min=1)]
WeightsFile = Annotated[Path | None, typer.Option(help="ImageNet weights of VGG16 (Keras notop .h5) to use.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as ductal-out/runs/vgg16-full.")]
D4 = Annotated[bool, typer.Option("--d4", help="Average over the 8 rotations and flips of each patch.")]


def _console() -> Console:
    from rich.console import Console

    return Console()


@contextmanager
def _bar(console: Console, what: str, unit: str = "patches") -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar with rate and ETA; yields the callback (done, total). Silent without a terminal."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)
    columns = (TextColumn(what), BarColumn(), *counts, TextColumn("ETA"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


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
        str | None, typer.Option(help="Recipes to train, separated by commas; names or .toml files.")
    ] = None,
    split: SplitOption = SplitName.random,
    ratios: Ratios = "0.7,0.15,0.15",
    fold: Fold = 0,
    folds: Folds = 5,
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
) -> None:
    """Do it all: prepare, split, audit, train, evaluate, compare, report."""
    from ductal.experiment import Plan, run_experiment
    from ductal.training.recipe import DEFAULT_RECIPES

    run_experiment(
        Plan(
            source=source,
            out=out,
            recipes=_names(recipes) or DEFAULT_RECIPES,
            split=split.value,
            ratios=_ratios(ratios),
            fold=fold,
            folds=folds,
            profile=profile.value if profile else None,
            seed=seed,
            patients=patients,
            limit_per_class=limit_per_class,
            max_epochs=max_epochs,
            patients_csv=patients_csv,
            weights_file=weights_file,
        ),
        _console(),
    )


@app.command()
def fetch(
    out: Annotated[Path, typer.Option("--out", help="File (.zip) or folder to download to.")] = Path(),
    url: Annotated[str | None, typer.Option(help="Another address than the official one.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Download again although the file is there.")] = False,
) -> None:
    """Download the official IDC archive (1.6 GB), resuming where an earlier download stopped."""
    from ductal.data.fetch import OFFICIAL_URL
    from ductal.data.fetch import fetch as fetch_archive
    from ductal.data.manifest import OFFICIAL

    console = _console()
    expected = OFFICIAL if url is None else None
    with _bar(console, "Downloading", "bytes") as progress:
        result = fetch_archive(out, url or OFFICIAL_URL, expected=expected, progress=progress, force=force)
    found = result.manifest
    how = "already there, verified" if result.verified_only else "downloaded and verified"
    console.print(
        f"{result.path}: {how}; {found.patches:,} patches of {found.patients} patients, "
        f"{found.positives:,} IDC, digest {found.digest}",
        soft_wrap=True,
    )


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="Zip archive, unpacked folder, or two class folders.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the prepared cohort.")] = Path("cohort"),
    patients: Patients = None,
    limit_per_class: Limit = None,
    seed: Seed = 42,
    patients_csv: PatientsCsv = None,
    as_folders: Annotated[
        Path | None, typer.Option(help="Also write cancer/ and not_cancer/ folders of PNG files here.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; one a core by default.", min=1)] = None,
) -> None:
    """Decode and check all patches once, into a memory-mapped cohort folder."""
    from ductal.data.store import export_folders
    from ductal.data.store import prepare as prepare_cohort
    from ductal.experiment import describe_cohort

    console = _console()
    with _bar(console, "Reading") as progress:
        cohort = prepare_cohort(
            source,
            out,
            patients=patients,
            limit_per_class=limit_per_class,
            seed=seed,
            patients_csv=patients_csv,
            workers=workers,
            progress=progress,
        )
    describe_cohort(cohort, console)
    console.print(f"Cohort: {out}", soft_wrap=True)
    if as_folders is not None:
        with _bar(console, "Writing") as progress:
            written = export_folders(cohort, as_folders, progress=progress)
        console.print(f"{written:,} files in {as_folders}", soft_wrap=True)


@app.command()
def synthesise(
    out: Annotated[Path, typer.Argument(help="Zip file (.zip) or folder to write.")],
    patients: Annotated[int, typer.Option(min=1)] = 24,
    patches_per_patient: Annotated[int, typer.Option(min=1)] = 60,
    seed: Seed = 42,
) -> None:
    """Write a synthetic archive in the layout of the real one, for trying things out."""
    from ductal.data.synthetic import make_synthetic

    console = _console()
    with _bar(console, "Drawing", "patients") as progress:
        make_synthetic(
            out, patients=patients, patches_per_patient=patches_per_patient, seed=seed, progress=progress
        )
    console.print(f"Synthetic archive: {out}", soft_wrap=True)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a .toml file.")],
    cohort: Annotated[Path, typer.Option("--cohort", help="A prepared cohort.")] = Path("cohort"),
    split: SplitOption = SplitName.random,
    ratios: Ratios = "0.7,0.15,0.15",
    fold: Fold = 0,
    folds: Folds = 5,
    profile: Annotated[Profile, typer.Option(help="quick or full.")] = Profile.full,
    out: Out = Path("ductal-out"),
    seed: Seed = 42,
    max_epochs: MaxEpochs = None,
    weights_file: WeightsFile = None,
) -> None:
    """Train one recipe and evaluate it on validation patients; the run goes to OUT/runs/NAME."""
    from ductal.data.cohort import Cohort
    from ductal.data.split import make_split
    from ductal.experiment import audited, load_recipes
    from ductal.training.isolated import train_isolated

    console = _console()
    settings = load_recipes((recipe,), profile.value, max_epochs)[0]
    patches = Cohort.open(cohort)
    parts = make_split(patches, split.value, seed=seed, ratios=_ratios(ratios), fold=fold, folds=folds)
    audit = audited(patches, parts, console)
    parts.save(out / "split.json")
    folder = train_isolated(
        settings, patches.folder, parts, out / "runs" / settings.name,
        audit=audit, seed=seed, profile=profile.value, weights_file=weights_file, final=False,
    )  # fmt: skip
    console.print(f"Run: {folder}. Its figures: ductal evaluate {folder}", soft_wrap=True)


@app.command()
def evaluate(
    run_folder: RunFolder,
    cohort: Annotated[Path | None, typer.Option(help="The cohort, if it has moved since the training.")] = None,
    d4: D4 = False,
) -> None:
    """Final evaluation of a run: metrics, figures and report; opens the test patients and counts it."""
    from ductal.evaluation.compare import leaderboard, to_rich_table
    from ductal.evaluation.evaluate import evaluate as evaluate_run

    _quiet_tensorflow()
    console = _console()
    patches, split = _data_of(run_folder, cohort)
    with _bar(console, "Predicting") as progress:
        evaluate_run(run_folder, patches, split, d4=d4, progress=progress)
    console.print(to_rich_table(leaderboard([run_folder])))
    console.print(f"Report: {run_folder / 'report.html'}", soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or a folder that holds runs/.")],
    out: Out = Path("ductal-out"),
    allow_different: Annotated[
        bool, typer.Option("--allow-different", help="Compare although cohorts or splits differ; marked in a column.")
    ] = False,
) -> None:
    """Leaderboard of runs: table, leaderboard.csv, leaderboard.md and one report.html."""
    from ductal.experiment import summarise

    folders: list[Path] = []
    for path in runs:
        inside = sorted(item.parent for item in (path / "runs").glob("*/run.json"))
        folders += inside or [path]
    summarise(out, folders, _console(), allow_different=allow_different)


@app.command()
def predict(
    run_folder: RunFolder,
    source: Annotated[Path, typer.Argument(help="Image files, a folder of them, an archive or a cohort.")],
    out: Annotated[Path, typer.Option("--out", help="CSV to write.")] = Path("predictions.csv"),
    d4: D4 = False,
) -> None:
    """Probability of IDC for patches, labelled or not, as a CSV file."""
    from ductal.inference.predict_files import predict_source

    _quiet_tensorflow()
    console = _console()
    with _bar(console, "Predicting") as progress:
        table = predict_source(run_folder, source, out, d4=d4, progress=progress)
    called = int(table["cancer"].sum())
    skipped = int((table["problem"] != "").sum())
    console.print(
        f"{len(table):,} images: {called:,} called cancer, {skipped:,} not usable. Written to {out}",
        soft_wrap=True,
    )


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from rich.table import Table

    from ductal.training.recipe import load_recipe, recipe_names

    table = Table("recipe", "what it is", "input", "stages")
    for name in recipe_names():
        recipe = load_recipe(name)
        stages = ", ".join(f"{stage.name} ({stage.epochs})" for stage in recipe.stages)
        table.add_row(name, recipe.title, f"{recipe.input_px} px", stages)
    _console().print(table)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _ratios(text: str) -> tuple[float, float, float]:
    try:
        train_share, val, test = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"three numbers such as 0.7,0.15,0.15 are needed, not {text}") from None
    return train_share, val, test


def _data_of(run_folder: Path, cohort: Path | None) -> tuple[Cohort, Split]:
    """The cohort and split a run was trained with: recorded path, or the folder the user names."""
    import json

    from ductal.data.cohort import Cohort
    from ductal.data.split import Split

    try:
        record: dict[str, Any] = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{run_folder} is not a run folder ({error}). Name a folder under runs/.") from error
    return Cohort.open(cohort or Path(record["cohort_folder"])), Split.load(run_folder / "split.json")


def _quiet_tensorflow() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main() -> None:
    """Entry point: one clear message and a documented exit code, never a traceback for a user's mistake."""
    try:
        app()
    except KeyboardInterrupt:
        typer.echo(
            "\nInterrupted. What was finished is kept; the same command goes on from there.", err=True
        )
        sys.exit(INTERRUPTED)
    except DuctalError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        refused = StorageError(f"{error}. Check the path, its permissions and the free space.")
        typer.echo(f"Error: {refused}", err=True)
        sys.exit(refused.exit_code)
