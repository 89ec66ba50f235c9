"""Commands beside the main way: what there is, what this machine can do, and data to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ductal.cli_options import D4, MethodChoice, RunFolder, Seed, Source, check_source
from ductal.console import bar, make_console, say

tools = typer.Typer()


@tools.command()
def recipes() -> None:
    """List the shipped recipes."""
    from rich.table import Column, Table

    from ductal.training.recipe import load_recipe, recipe_names

    table = Table(Column("recipe", no_wrap=True), "what it is", "input", "stages")
    for name in recipe_names():
        recipe = load_recipe(name)
        stages = ", ".join(f"{stage.name} ({stage.epochs})" for stage in recipe.stages)
        table.add_row(name, recipe.title, f"{recipe.input_px} px", stages)
    make_console().print(table)


@tools.command()
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


@tools.command()
def explain(
    run_folder: RunFolder,
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="Folder to write; an earlier explanation is replaced.")] = Path(
        "explanations"
    ),
    method: Annotated[
        MethodChoice, typer.Option(help="grad-cam, occlusion (needs only probabilities), or both, compared.")
    ] = MethodChoice.both,
    limit: Annotated[int, typer.Option(help="At most this many images, evenly over the source.", min=1)] = 24,
    d4: D4 = False,
    layer: Annotated[
        str | None, typer.Option(help="Layer of Grad-CAM; the last with a map of at least 2 x 2 by default.")
    ] = None,
) -> None:
    """Where in its patches a network finds what it calls: overlays, maps and a table."""
    from ductal.inference.explain_files import explain_source, summary

    check_source(source)
    console = make_console()
    with bar(console, "Explaining", "maps") as progress:
        table = explain_source(
            run_folder, source, out, method=method.value, limit=limit, d4=d4, layer=layer, progress=progress
        )
    say(console, f"{summary(table)}. Written to {out}")


@tools.command()
def doctor() -> None:
    """What this machine offers, how fast each recipe trains on it, and what would make it faster."""
    from rich.table import Column, Table

    from ductal.console import quiet_tensorflow

    quiet_tensorflow()  # before anything imports TensorFlow, which talks
    from ductal.doctor import examine
    from ductal.training.precision import cache_file

    console = make_console()
    with bar(console, "Timing training steps", "recipes") as progress:
        diagnosis = examine(progress)
    facts = Table(show_header=False, box=None)
    for name, value in diagnosis.facts.items():
        facts.add_row(name, value)
    console.print(facts)
    rate = Column("images/s", justify="right")
    speeds = Table("recipe", "input", "precision", rate, "timed", title="Training, all layers")
    for speed in diagnosis.speeds:
        timed = ", ".join(f"{name} {value:.0f}" for name, value in speed.choice.images_per_second.items())
        speeds.add_row(
            speed.recipe.name, f"{speed.recipe.input_px} px", speed.choice.label,
            f"{speed.images_per_second:.0f}", timed,
        )  # fmt: skip
    console.print(speeds)
    if any("cached" in speed.choice.reason for speed in diagnosis.speeds):
        say(console, f"Some speeds were timed earlier; to time them anew, delete {cache_file()}")
    say(console, "Forward and backward pass. Stages with frozen layers are faster; the optimizer costs a little.")
    for advice in diagnosis.advice or ["Nothing to change."]:
        say(console, f"- {advice}")
