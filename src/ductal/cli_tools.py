"""Commands beside the main way: what there is, what this machine can do, explanations, and mistakes on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ductal.cli_options import (
    D4,
    BackboneChoice,
    Engine,
    EngineChoice,
    FormatChoice,
    Limit,
    MethodChoice,
    Out,
    PrecisionChoice,
    RayAddress,
    RayCpus,
    RunFolder,
    Seed,
    Source,
    WeightsFile,
    check_source,
    ray_cpus_in,
)
from ductal.console import bar, make_console, quiet_tensorflow, say
from ductal.errors import BusyError, DataError
from ductal.prior.faults import FAULTS, configurations, fault_named

tools = typer.Typer()


@tools.command()
def recipes() -> None:
    """List the shipped recipes."""
    from rich.table import Column, Table

    from ductal.training.recipe_file import load_recipe, recipe_names

    table = Table(Column("recipe", no_wrap=True), "what it is", "input", "stages")
    for name in recipe_names():
        recipe = load_recipe(name)
        stages = ", ".join(f"{stage.name} ({stage.epochs})" for stage in recipe.stages)
        table.add_row(name, recipe.title, f"{recipe.input_px} px", stages)
    make_console().print(table)


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
def export(
    run_folder: RunFolder,
    to: Annotated[FormatChoice, typer.Option("--to", help="Format of the exported model.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; exports/FORMAT-PRECISION in the run by default.")
    ] = None,
    precision: Annotated[
        PrecisionChoice, typer.Option(help="float16 and bfloat16 where the format has them; int8 for openvino.")
    ] = PrecisionChoice.float32,
    d4: D4 = False,
    cohort: Annotated[Path | None, typer.Option(help="The cohort, if it has moved since the training.")] = None,
) -> None:
    """A run as a file for other programs, kept only if their own runtime gives the run's probabilities."""
    from ductal.export.export import export_run

    console = make_console()
    quiet_tensorflow()
    with bar(console, "Exporting", "steps") as progress:
        done = export_run(
            run_folder, to.value, out, precision=precision.value, d4=d4, cohort=cohort, progress=progress
        )
    say(console, f"{done}\nWritten to {done.folder}; what it takes and gives: {done.folder / 'ductal.json'}")


@tools.command()
def slide(
    run_folder: RunFolder,
    source: Annotated[
        Path, typer.Argument(metavar="SLIDE", help="A scanned slide or an image of tissue, or a folder of them.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results, one for each slide.")] = Path("slides"),
    mpp: Annotated[
        float | None, typer.Option(help="um per pixel of slides whose file does not say; a file that says is right.")
    ] = None,
    model_mpp: Annotated[
        float | None, typer.Option(help="um per pixel the run was trained at; what the run says, else 4.0.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Probability at and above which a tile is tumour; the run's own by default.")
    ] = None,
    d4: D4 = False,
    engine: Engine = EngineChoice.auto,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Compute also slides that have a result of this run and settings.")
    ] = False,
    patch_only: Annotated[
        bool, typer.Option("--patch-only", help="Judge each tile by itself, though the run has a context.")
    ] = False,
    pseudonyms: Annotated[
        bool, typer.Option("--pseudonyms", help="Call slides by a digest: names of files may name patients.")
    ] = False,
    ray: RayAddress = None,
    ray_cpus: RayCpus = None,
) -> None:
    """Where on a scanned slide there is carcinoma: heat map, probabilities, regions for QuPath, a summary.

    A slide that cannot be used is told and does not stop the rest; the command then ends with exit code 3.
    """
    from ductal.slides.analyse import SlideAnalyser
    from ductal.slides.batch import Outcome, analyse_slides

    cpus = ray_cpus_in(ray, ray_cpus)
    console = make_console()
    analyser = SlideAnalyser(
        run_folder, model_mpp=model_mpp, threshold=threshold, d4=d4, engine=engine.value,
        context=False if patch_only else None, pseudonyms=pseudonyms,
    )  # fmt: skip

    def tell(outcome: Outcome) -> None:
        if outcome.result is None:
            if source.is_dir():  # of a single slide, the error below is the message
                say(console, f"{outcome.name}: failed. {outcome.problem}")
            return
        found = outcome.result.summary["found"]
        again = "; computed earlier" if outcome.result.reused else ""
        say(
            console,
            f"{outcome.name}: IDC {found['tumour_area_mm2']:.2f} mm2, {found['tumour_share_of_tissue']:.1%} of "
            f"{found['tissue_area_mm2']:.2f} mm2 tissue{again}. {outcome.result.folder}",
        )
        for flag in outcome.result.summary["flags"]:
            say(console, f"  note: {flag['text']}")

    settings: dict[str, Any] = {"mpp": mpp, "overwrite": overwrite, "tell": tell}
    if ray is None:
        outcomes = analyse_slides(analyser, source, out, **settings, bar=lambda name: bar(console, name, "tiles"))
    else:
        from ductal.cluster.slides import analyse_slides_on

        outcomes = analyse_slides_on(
            ray, analyser, source, out, cpus=cpus, **settings,
            bar=lambda name: bar(console, name, "slides"), note=lambda text: say(console, f"Note: {text}"),
        )  # fmt: skip
    problems = [outcome for outcome in outcomes if outcome.result is None]
    if problems and not source.is_dir():
        raise (BusyError if problems[0].busy else DataError)(problems[0].problem)
    if problems:
        raise DataError(f"{len(problems)} of {len(outcomes)} slides failed; {out / 'slides.csv'} says why.")


@tools.command()
def doctor() -> None:
    """What this machine offers, how fast each recipe trains on it, and what would make it faster."""
    from rich.table import Column, Table

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


def _switch(name: str) -> Any:
    """The option that switches a fault of `ductal prior` on, explained in the fault's own words."""
    return typer.Option(f"--{name}", help=fault_named(name).says, rich_help_panel="Faults")


@tools.command()
def prior(
    source: Annotated[
        Path | None, typer.Argument(help="Archive, folder or prepared cohort; without one, the synthetic cohort.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every fault, one after the other.")] = False,
    leaky_split: Annotated[bool, _switch("leaky-split")] = False,
    duplicated_patches: Annotated[bool, _switch("duplicated-patches")] = False,
    no_test_set: Annotated[bool, _switch("no-test-set")] = False,
    best_of_five: Annotated[bool, _switch("best-of-five")] = False,
    first_200: Annotated[bool, _switch("first-200")] = False,
    augmented_validation: Annotated[bool, _switch("augmented-validation")] = False,
    shuffled_matrix: Annotated[bool, _switch("shuffled-matrix")] = False,
    inverted_classes: Annotated[bool, _switch("inverted-classes")] = False,
    double_rescale: Annotated[bool, _switch("double-rescale")] = False,
    frozen_random: Annotated[bool, _switch("frozen-random")] = False,
    unset_normalisation: Annotated[bool, _switch("unset-normalisation")] = False,
    batch_norm_training: Annotated[bool, _switch("batch-norm-training")] = False,
    one_pixel_maps: Annotated[bool, _switch("one-pixel-maps")] = False,
    patients: Annotated[
        int | None, typer.Option(help="Draw this many patients; 30 of an archive by default.", min=3)
    ] = None,
    limit_per_class: Limit = None,
    epochs: Annotated[
        int, typer.Option(help="Passes of a network that trains whole; 4 times as many of a head alone.", min=1)
    ] = 8,
    seed: Seed = 42,
    backbone: Annotated[
        BackboneChoice, typer.Option(help="Network of the faults that can be shown on any.")
    ] = BackboneChoice.vgg16,
    weights_file: WeightsFile = None,
    out: Out = Path("ductal-prior"),
) -> None:
    """Show what the usual notebooks' mistakes do to the figure they report, and to the true one.

    A demonstration of mistakes and no way to train: no model is kept, and no figure of it is a result. Faults that
    are named are put into one configuration; --all shows them one after the other.
    """
    named = {
        "leaky-split": leaky_split,
        "duplicated-patches": duplicated_patches,
        "no-test-set": no_test_set,
        "best-of-five": best_of_five,
        "first-200": first_200,
        "augmented-validation": augmented_validation,
        "shuffled-matrix": shuffled_matrix,
        "inverted-classes": inverted_classes,
        "double-rescale": double_rescale,
        "frozen-random": frozen_random,
        "unset-normalisation": unset_normalisation,
        "batch-norm-training": batch_norm_training,
        "one-pixel-maps": one_pixel_maps,
    }
    if every == any(named.values()):
        raise typer.BadParameter("name one fault or more, for one configuration with them, or give --all instead")
    faults = tuple(fault.name for fault in FAULTS if every or named[fault.name])
    configurations(faults, backbone.value, one_by_one=every)  # a mistake is told before TensorFlow is imported
    quiet_tensorflow()
    from ductal.prior.demonstrate import Demonstration, demonstrate

    demonstrate(
        Demonstration(
            faults, every, source, out, patients, limit_per_class, epochs, seed, backbone.value, weights_file
        ),
        make_console(),
    )
