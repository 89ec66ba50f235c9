"""Which settings of a recipe go together: nothing that is written in one may be without effect in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

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


def without_idle(stage: dict[str, Any]) -> dict[str, Any]:
    """The settings of a stage less those that its schedule and its optimizer leave without effect.

    For a search, which draws each key for itself; in a recipe that somebody wrote they are mistakes.
    """
    idle = set()
    if stage.get("schedule") == "cosine":
        idle.add("reduce_lr")
    if stage.get("optimizer", "adamw") != "adamw":
        idle.add("weight_decay")
    return {key: value for key, value in stage.items() if key not in idle}


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


def recipe_mistakes(recipe: Recipe) -> list[str]:
    """Which settings of a recipe cannot be had together, or have no effect, a line each."""
    mistakes = []
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
    if recipe.weights == "random" or not recipe.backbone.startswith("VGG"):
        what = "a backbone with random weights" if recipe.weights == "random" else recipe.backbone
        mistakes.append(
            f"cached_views = {recipe.cached_views} has no effect: it keeps activations of frozen layers, for VGG16 "
            f'and VGG19 with weights = "imagenet" only. Received: {what}; leave it out'
        )
    elif recipe.stages[0].unfreeze == "all":
        mistakes.append(
            f'cached_views = {recipe.cached_views} has no effect: the first stage, "{recipe.stages[0].name}", trains '
            "all layers; leave it out"
        )
    return mistakes
