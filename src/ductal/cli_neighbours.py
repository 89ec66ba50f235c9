"""Commands that know where patches lie: slides put together again, and what neighbours say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ductal.cli_options import RunFolder, Seed, names_in
from ductal.cli_run_data import data_of
from ductal.console import bar, make_console, quiet_tensorflow, say

neighbours = typer.Typer()

OfCohort = Annotated[Path | None, typer.Option(help="The cohort, if it has moved, or another one.")]


@neighbours.command()
def rebuild(
    run_folder: RunFolder,
    patients: Annotated[
        list[str] | None, typer.Argument(metavar="[PATIENT]...", help="By default those the run has predicted.")
    ] = None,
    cohort: OfCohort = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; earlier slides there are replaced.")] = Path(
        "rebuilt"
    ),
    context: Annotated[
        bool | None,
        typer.Option("--context/--patch-only", help="Refine by neighbours; by default where a context was fitted."),
    ] = None,
    tissue: Annotated[bool, typer.Option("--tissue/--no-tissue", help="Show the tissue itself.")] = True,
    mpp: Annotated[
        float | None, typer.Option(help="Micrometres a pixel, for areas and the scale bar, if the cohort has none.")
    ] = None,
) -> None:
    """Put slides together from a cohort's patches: tissue, truth, probabilities, errors and figures of each."""
    from ductal.slides.rebuild import rebuild as rebuild_slides

    console = make_console()
    patches, split = data_of(run_folder, cohort)
    with bar(console, "Rebuilding", "steps") as progress:
        table = rebuild_slides(
            run_folder, patches, split, out, patients=patients or (), context=context, tissue=tissue,
            spacing_um=mpp, progress=progress,
        )  # fmt: skip
    tracks = " and ".join(table["track"].unique())
    say(console, f"{len(table)} slides, {int(table['patches'].sum()):,} patches, track: {tracks}. Written to {out}")


@neighbours.command()
def context(
    run_folder: RunFolder,
    patients: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATIENT]...", help="By default all with complete slides that the run was not trained on."
        ),
    ] = None,
    cohort: OfCohort = None,
    heads: Annotated[
        str, typer.Option(help="Separated by commas; smoothing is always among them, and is what is kept.")
    ] = "smoothing,embeddings,grid",
    with_test: Annotated[
        bool, typer.Option("--with-test", help="Also use test patients, if the run was evaluated on them.")
    ] = False,
    seed: Seed = 42,
) -> None:
    """Fit how neighbours refine a run's calls, and compare it with the patch model, leave-one-slide-out."""
    chosen = names_in(heads)
    if set(chosen) - {"smoothing"}:
        quiet_tensorflow()
    from ductal.context.report import to_rich_table
    from ductal.context.study import fit_context

    console = make_console()
    patches, split = data_of(run_folder, cohort)
    with bar(console, "Context", "steps") as progress:
        found = fit_context(
            run_folder, patches, split, patients=patients or (), heads=chosen, with_test=with_test,
            seed=seed, progress=progress, report=lambda text: say(console, text),
        )  # fmt: skip
    console.print(to_rich_table(found.models))
    say(console, f"Context: {run_folder / 'context.json'}; report: {run_folder / 'context' / 'report.md'}")
