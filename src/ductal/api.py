"""`ductal.train`: one recipe, in this process, for scripts and notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console

from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.tracking.options import Tracking
from ductal.training.recipe import Recipe
from ductal.training.recipe_file import load_recipe


def train(
    recipe: str | Path | Recipe,
    cohort: Cohort,
    split: Split,
    out: str | Path,
    *,
    profile: Literal["quick", "full"] = "full",
    seed: int = 42,
    weights_file: Path | None = None,
    fresh: bool = False,
    tracking: Tracking | None = None,
    gpus: int | None = None,
    deterministic: bool = False,
    console: Console | None = None,
) -> Path:
    """Train a recipe into the run folder `out` and return that folder; evaluate it afterwards.

    Args:
        recipe: name of a shipped recipe, path of a TOML file, or settings.
        cohort: the patches.
        split: which patients train and validate.
        out: the run folder; an earlier run there is replaced.
        profile: "quick" shortens stages and may use a smaller input.
        seed: of weights, order and augmentation.
        weights_file: ImageNet weights to use instead of those the resolver finds.
        fresh: begin anew; otherwise a call that was interrupted is continued.
        tracking: who else is told, such as ``Tracking.parse(["mlflow"], folder, uri)``.
        gpus: graphics processors that share each batch; None is one device.
        deterministic: the same again from the same seed, also on a GPU, or an error; slower. This process stays so
            (see `ductal.training.deterministic`), so call it before TensorFlow has done anything.
        console: where progress is shown; a default console when None.

    Raises:
        RecipeError, LeakError, DataError, WeightsError, StorageError, RunError: see `ductal.training.trainer.train`.
    """
    from ductal.training.progress import TrainingProgress
    from ductal.training.trainer import train as train_recipe

    settings = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    with TrainingProgress(settings.name, console or Console()) as progress:
        return train_recipe(
            settings.for_profile(profile), cohort, split, out,
            seed=seed, progress=progress, weights_file=weights_file, profile=profile, fresh=fresh,
            tracking=tracking, gpus=gpus,
            deterministic=deterministic,
        )  # fmt: skip
