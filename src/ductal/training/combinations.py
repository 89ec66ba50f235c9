"""Which settings of a recipe go together: nothing that is written in one may be without effect in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ductal.errors import RecipeError
from ductal.training.backbones import BACKBONES, CHAINS, family_of

if TYPE_CHECKING:
    from ductal.training.recipe import Recipe, Stage

WEIGHT_DECAY = 1e-4  # of AdamW where a stage does not say
Settings = TypeVar("Settings")


def accept(settings: Settings, mistakes: list[str]) -> Settings:
    """`settings`, if there are no mistakes in them; else ValueError, which pydantic makes a part of its own."""
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return settings


def filled_in(stage: dict[str, Any]) -> dict[str, Any]:
    """The settings of a stage as written, with what depends on others where it was left out."""
    filled = dict(stage)
    if filled.get("reduce_lr") is None and filled.get("schedule", "plateau") == "plateau":
        filled["reduce_lr"] = {}
    if filled.get("weight_decay") is None:
        filled["weight_decay"] = WEIGHT_DECAY if filled.get("optimizer", "adamw") == "adamw" else 0.0
    return filled


def without_idle(recipe: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe, as JSON values, less those that its other settings leave without effect.

    For a search, which draws each key for itself; in a recipe that somebody wrote they are mistakes.
    """
    kept, stages = dict(recipe), recipe.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        return kept  # refused as it is
    kept["stages"] = [
        {key: value for key, value in stage.items() if key not in _idle_of(stage)} for stage in stages
    ]
    if _nothing_kept(str(recipe.get("backbone")), str(recipe.get("weights")), stages[0].get("unfreeze")):
        kept.pop("cached_views", None)
    return kept


def _idle_of(stage: dict[str, Any]) -> set[str]:
    idle = {"reduce_lr"} if stage.get("schedule") == "cosine" else set()
    return idle | ({"weight_decay"} if stage.get("optimizer", "adamw") != "adamw" else set())


def _nothing_kept(backbone: str, weights: str, unfreeze: Any) -> str | None:
    """Why no activations of frozen layers can be kept, or None; `unfreeze` is the first stage's."""
    if backbone == "onnx":  # an encoder, which is frozen as a whole
        return None
    if weights == "random":
        return 'a backbone with weights = "random" has no frozen layers'
    if backbone not in CHAINS:
        return f"activations of frozen layers are kept for {' and '.join(CHAINS)} only. Received: {backbone}"
    return "the first stage trains from the first layer on" if _trains_first_layer(backbone, unfreeze) else None


def _trains_first_layer(backbone: str, unfreeze: Any) -> bool:
    first, count = CHAINS[backbone]
    if isinstance(unfreeze, list):
        return any(family_of(backbone).layers_of(str(part), [first]) for part in unfreeze)
    return unfreeze == "all" or (isinstance(unfreeze, int | float) and unfreeze >= count)


def stage_mistakes(stage: Stage) -> list[str]:
    """What is set in a stage and has no effect there, a line each."""
    mistakes = []
    if stage.weight_decay and stage.optimizer != "adamw":
        mistakes.append(
            f'weight_decay = {stage.weight_decay} has no effect with optimizer = "{stage.optimizer}"; '
            'use optimizer = "adamw" or leave it out'
        )
    if stage.reduce_lr is not None and stage.schedule == "cosine":
        mistakes.append(
            'reduce_lr has no effect with schedule = "cosine"; use schedule = "plateau" or leave reduce_lr out'
        )
    return mistakes


def _unfreeze_mistakes(recipe: Recipe) -> list[str]:
    """Layers that no stage can free; what only the layers themselves tell, `ductal.training.network` refuses."""
    if recipe.backbone not in BACKBONES:  # an encoder, which is frozen as a whole
        return []
    family, mistakes = family_of(recipe.backbone), []
    for number, stage in enumerate(recipe.stages):
        if isinstance(stage.unfreeze, list):
            mistakes += [
                f'stages.{number}.unfreeze: {recipe.backbone} has no block "{part}"; blocks of {family.name} are '
                f"called {family.block_names}"
                for part in stage.unfreeze if not family.may_have(part)
            ]  # fmt: skip
        elif isinstance(stage.unfreeze, int) and recipe.backbone in CHAINS:
            count = CHAINS[recipe.backbone][1]
            if stage.unfreeze > count:
                mistakes.append(
                    f"stages.{number}.unfreeze = {stage.unfreeze}, but {recipe.backbone} has {count} layers"
                )
    return mistakes


def recipe_mistakes(recipe: Recipe) -> list[str]:
    """Which settings of a recipe cannot be had together, or have no effect, a line each."""
    mistakes = _unfreeze_mistakes(recipe)
    if recipe.class_weights and recipe.sampling != "patches":
        mistakes.append(
            f'class_weights = true and sampling = "{recipe.sampling}" both even out the classes, which makes the '
            'rarer one count for more than the other; use one of them'
        )
    if not recipe.cached_views:
        return mistakes
    for key in ("mixup", "cutmix"):
        if getattr(recipe, key):
            mistakes.append(
                f"{key} mixes pixels anew in every epoch, and cached_views = {recipe.cached_views} trains on "
                "activations that were computed once; use cached_views = 0 or leave it out"
            )
    why = _nothing_kept(recipe.backbone, recipe.weights, recipe.stages[0].unfreeze)
    if why:
        mistakes.append(f"cached_views = {recipe.cached_views} has no effect: {why}; leave cached_views out")
    return mistakes


def check_shares(recipe: Recipe, gpus: int | None) -> None:
    """Raises RecipeError where so many graphics processors cannot share the recipe's batches evenly."""
    if gpus and recipe.batch_size % gpus:
        larger = recipe.batch_size + gpus - recipe.batch_size % gpus
        raise RecipeError(
            f"The recipe {recipe.name} has batches of {recipe.batch_size}, which {gpus} graphics processors cannot "
            f"share evenly. Use batch_size = {larger} in a recipe of your own, or another --gpus."
        )
