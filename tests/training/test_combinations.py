"""Settings that cannot be had together, or would have no effect, are refused by name; a search drops them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_training import small_recipe, stage

from ductal.errors import RecipeError
from ductal.training.recipe import Recipe
from ductal.training.recipe_file import load_recipe, parse_recipe, recipe_names
from ductal.tune.space import parse_space


def refused(**changes: Any) -> str:
    settings = json.loads(small_recipe().model_dump_json())
    with pytest.raises(RecipeError) as caught:
        parse_recipe(settings | changes, "mine.toml")
    assert "mine.toml has 1 mistake(s)" in str(caught.value)
    assert "Received: {" not in str(caught.value)  # no table as a whole
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": [stage(optimizer="adam", weight_decay=1e-4)]}, ["stages.0", "weight_decay", '"adamw"']),
        ({"stages": [stage(optimizer="sgd", weight_decay=0.01)]}, ["weight_decay = 0.01", 'optimizer = "sgd"']),
        ({"stages": [stage(schedule="cosine", reduce_lr={})]}, ["stages.0", "reduce_lr", '"plateau"']),
        ({"class_weights": True, "sampling": "classes"}, ["class_weights", 'sampling = "classes"', "use one"]),
        ({"cached_views": 2, "mixup": 0.2}, ["mixup", "cached_views = 2", "leave it out"]),
        ({"cached_views": 2, "cutmix": 1.0}, ["cutmix", "cached_views = 2"]),
        ({"cached_views": 2, "backbone": "DenseNet121"}, ["cached_views", "VGG19", "DenseNet121"]),
        *(
            ({"cached_views": 2, "stages": [stage(unfreeze=what)]}, ["cached_views = 2", "from the first layer on"])
            for what in ("all", 18, ["block5", "block1"], ["block1_conv1"])
        ),
        ({"stages": [stage(), stage("top", 19)]}, ["stages.1.unfreeze = 19, but VGG16 has 18 layers"]),
        ({"stages": [stage(), stage("top", ["block5", "blok6"])]}, ["stages.1.unfreeze", 'no block "blok6"']),
        (
            {"stages": [stage(), stage("top", ["block5"])], "backbone": "DenseNet121"},
            ['no block "block5"', "blocks of DenseNet are called convN, poolN, bn"],
        ),
        ({"augment": {"randaugment": {"ops": 2}}}, ["augment.randaugment.ops", "operations", "strength"]),
        ({"augment": {"randaugment": {"operations": 10}}}, ["augment.randaugment.operations", "9", "10"]),
        ({"ema": 1.0}, ["ema", "less than 1"]),
        ({"mixup": -0.1}, ["mixup", "greater than or equal to 0"]),
        ({"sampling": "patient"}, ["sampling", "patients", "classes"]),
    ],
)
def test_what_does_not_go_together_is_named(changes: dict[str, Any], said: list[str]) -> None:
    message = refused(**changes)
    for part in said:
        assert part in message


def test_random_weights_have_nothing_to_keep() -> None:
    assert "cached_views" in refused(cached_views=1, weights="random", stages=[stage(unfreeze="all")])


def test_both_kinds_of_mixing_are_told_at_once() -> None:
    message = refused(cached_views=1, mixup=0.2, cutmix=1.0)
    assert "mixup mixes" in message
    assert "cutmix mixes" in message


def test_what_is_left_out_takes_the_value_that_has_an_effect() -> None:
    found = {
        name: small_recipe(stage(**changes)).stages[0]
        for name, changes in {"adamw": {}, "adam": {"optimizer": "adam"}, "cosine": {"schedule": "cosine"}}.items()
    }
    assert [found[name].weight_decay for name in found] == [1e-4, 0.0, 1e-4]
    assert found["cosine"].reduce_lr is None
    assert found["adam"].reduce_lr is not None
    assert found["adam"].reduce_lr.patience == 2
    assert small_recipe(stage(weight_decay=0.0)).stages[0].weight_decay == 0.0


def test_every_shipped_recipe_is_written_and_read_again() -> None:
    for name in recipe_names():
        recipe = load_recipe(name)
        assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
        assert Recipe.model_validate(recipe.model_dump(mode="json", exclude_none=True)) == recipe


def test_all_extras_in_one_file(tmp_path: Path) -> None:
    text = """
        name = "mine"
        title = "Mine"
        backbone = "EfficientNetB0"
        weights = "random"
        mixup = 0.2
        cutmix = 1.0
        ema = 0.999
        sampling = "patients"
        label_smoothing = 0.05
        [augment.randaugment]
        operations = 3
        [[stages]]
        name = "all"
        unfreeze = "all"
        epochs = 1
        learning_rate = 1e-3
        optimizer = "sgd"
        schedule = "cosine"
    """
    (tmp_path / "mine.toml").write_text(text)
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.augment.randaugment is not None
    assert (recipe.augment.randaugment.operations, recipe.augment.randaugment.strength) == (3, 0.3)
    assert recipe.rebalanced


def test_what_a_search_cannot_have_is_told_with_its_key() -> None:
    space = parse_space({"class_weights": {"type": "categorical", "choices": [False, True]}}, "The space")
    mixing = parse_space({"mixup": {"type": "float", "low": 0.0, "high": 0.4}}, "The space")
    for made, recipe in ((space, small_recipe(sampling="classes")), (mixing, small_recipe(cached_views=1))):
        with pytest.raises(RecipeError, match=next(iter(made.parameters))):
            made.check(recipe)


def test_a_search_over_schedule_and_optimizer_drops_what_has_no_effect() -> None:
    space = parse_space(
        {
            "stages.0.schedule": {"type": "categorical", "choices": ["plateau", "cosine"]},
            "stages.0.optimizer": {"type": "categorical", "choices": ["adam", "adamw"]},
            "stages.0.weight_decay": {"type": "float", "low": 1e-5, "high": 1e-2},
            "stages.0.reduce_lr.factor": {"type": "float", "low": 0.1, "high": 0.5},
        },
        "a space",
    )
    recipe = small_recipe(stage(reduce_lr={"factor": 0.2}))
    space.check(recipe)
    values = {"stages.0.weight_decay": 1e-3, "stages.0.reduce_lr.factor": 0.4}
    idle = space.apply(recipe, {"stages.0.schedule": "cosine", "stages.0.optimizer": "adam", **values}).stages[0]
    used = space.apply(recipe, {"stages.0.schedule": "plateau", "stages.0.optimizer": "adamw", **values}).stages[0]
    assert (idle.reduce_lr, idle.weight_decay) == (None, 0.0)
    cached = small_recipe(cached_views=2)
    choices = {"none": 2, "all": 0, 17: 2, 18: 0}
    freeing = parse_space({"stages.0.unfreeze": {"type": "categorical", "choices": list(choices)}}, "a space")
    freeing.check(cached)
    assert {what: freeing.apply(cached, {"stages.0.unfreeze": what}).cached_views for what in choices} == choices
    beyond = parse_space({"stages.0.unfreeze": {"type": "int", "low": 1, "high": 19}}, "a space")
    with pytest.raises(RecipeError, match=r"stages\.0\.unfreeze = 19, but VGG16 has 18 layers"):
        beyond.check(cached)
    assert used.reduce_lr is not None
    assert (used.reduce_lr.factor, used.weight_decay) == (0.4, 1e-3)
