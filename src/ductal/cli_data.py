"""Commands that get data and prepare it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ductal.cli_options import Limit, Patients, PatientsCsv, Seed
from ductal.console import bar, make_console, say
from ductal.files import sweep

data = typer.Typer()


@data.command()
def fetch(
    out: Annotated[Path, typer.Option("--out", help="File (.zip) or folder to download to.")] = Path(),
    url: Annotated[str | None, typer.Option(help="Another address than the official one.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Download again although the file is there.")] = False,
) -> None:
    """Download the official IDC archive (1.6 GB), resuming where an earlier download stopped."""
    from ductal.data.fetch import OFFICIAL_URL
    from ductal.data.fetch import fetch as fetch_archive
    from ductal.data.manifest import OFFICIAL

    console = make_console()
    expected = OFFICIAL if url is None else None
    with bar(console, "Downloading", "bytes") as progress:
        result = fetch_archive(out, url or OFFICIAL_URL, expected=expected, progress=progress, force=force)
    found = result.manifest
    how = "already there, verified" if result.verified_only else "downloaded and verified"
    say(
        console,
        f"{result.path}: {how}; {found.patches:,} patches of {found.patients} patients, "
        f"{found.positives:,} IDC, digest {found.digest}",
    )


@data.command()
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
    from ductal.experiment_data import describe_cohort

    console = make_console()
    sweep(out)  # before the free space is looked at
    with bar(console, "Reading") as progress:
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
    say(console, f"Cohort: {out}")
    if as_folders is not None:
        with bar(console, "Writing") as progress:
            written = export_folders(cohort, as_folders, progress=progress)
        say(console, f"{written:,} files in {as_folders}")


@data.command()
def synthesise(
    out: Annotated[Path, typer.Argument(help="Zip file (.zip) or folder to write.")],
    patients: Annotated[int, typer.Option(help="Number of patients.", min=1)] = 24,
    patches_per_patient: Annotated[int, typer.Option(help="Patches of each patient.", min=1)] = 60,
    seed: Seed = 42,
) -> None:
    """Write a synthetic archive in the layout of the real one, for trying things out."""
    from ductal.data.synthetic import make_synthetic

    console = make_console()
    with bar(console, "Drawing", "patients") as progress:
        make_synthetic(
            out, patients=patients, patches_per_patient=patches_per_patient, seed=seed, progress=progress
        )
    say(console, f"Synthetic archive: {out}")
