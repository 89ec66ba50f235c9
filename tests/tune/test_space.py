"""Search spaces: every recipe that is drawn is a valid one, and every mistake is named before anything runs."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from ductal.errors import RecipeError
from ductal.training.combinations import WEIGHT_DECAY
from ductal.training.recipe import Recipe
from ductal.training.recipe_file import load_recipe, parse_recipe
from ductal.tune.parameters import Choices, FloatRange, IntRange
from ductal.tune.space import Space, load_space, parse_space, space_names

FROZEN = load_recipe("vgg16-frozen")


def space(**parameters: dict[str, Any]) -> Space:
    return parse_space({key.replace("__", "."): value for key, value in parameters.items()}, "The space")


@pytest.mark.parametrize("name", space_names())
def test_shipped_spaces_fit_their_recipes_and_hold_them(name: str) -> None:
    recipe, shipped = load_recipe(name), load_space(name)
    shipped.check(recipe)
    labels = shipped.labels_of(recipe)
    assert labels is not None
    assert shipped.apply(recipe, shipped.values(labels)) == recipe


@pytest.mark.parametrize("name", space_names())
def test_every_sample_of_a_shipped_space_is_a_recipe(name: str) -> None:
    recipe, shipped = load_recipe(name), load_space(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = set()
    for _ in range(60):
        made = shipped.apply(recipe, shipped.suggest(study.ask()))
        assert isinstance(made, Recipe)
        drawn.add(made.model_dump_json())
    assert len(drawn) > 50


def test_adamw_drawn_for_a_recipe_of_another_optimizer_has_its_default_decay() -> None:
    written = FROZEN.model_dump(mode="json")
    written["stages"][0] |= {"optimizer": "adam", "weight_decay": 0.0}
    adam = Recipe.model_validate(written)
    optimizers = {"type": "categorical", "choices": ["adam", "adamw"]}
    made = space(stages__0__optimizer=optimizers)
    made.check(adam)
    decays = [made.apply(adam, {"stages.0.optimizer": name}).stages[0].weight_decay for name in ("adam", "adamw")]
    assert decays == [0.0, WEIGHT_DECAY]
    both = space(
        stages__0__optimizer=optimizers,
        stages__0__weight_decay={"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
    )
    drawn = {"stages.0.optimizer": "adamw", "stages.0.weight_decay": 0.005}
    assert both.apply(adam, drawn).stages[0].weight_decay == 0.005
    assert both.apply(adam, drawn | {"stages.0.optimizer": "adam"}) == adam
    written["stages"][0] |= {"optimizer": "adamw", "weight_decay": 0.0}
    none = Recipe.model_validate(written)  # said so, and kept
    assert made.apply(none, {"stages.0.optimizer": "adamw"}).stages[0].weight_decay == 0.0


KEYS = st.sampled_from(
    ["head.dropout", "head.units", "batch_size", "label_smoothing", "stages.0.learning_rate", "stages.0.epochs",
     "stages.0.unfreeze", "stages.0.schedule", "augment.stain", "stages.0.early_stopping.patience", "cached_views",
     "backbone", "head.pooling", "stages.1.epochs", "head", "name", "hed.dropout", "stages", "batch_size.x"]
)  # fmt: skip
NUMBERS = st.one_of(st.integers(-10, 5000), st.floats(-2, 2))
VALUES = st.one_of(NUMBERS, st.booleans(), st.sampled_from(["all", "none", "avg", "cosine"]), st.just([64]))
RANGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["float", "int", "uniform"]), "low": NUMBERS, "high": NUMBERS},
    optional={"log": st.booleans(), "step": NUMBERS, "setp": st.just(1)},
)
LISTS = st.fixed_dictionaries({"type": st.just("categorical"), "choices": st.lists(VALUES, max_size=3)})


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, st.one_of(RANGES, LISTS), max_size=3), st.integers(0, 2**31))
def test_a_space_gives_recipes_or_is_refused(raw: dict[str, Any], seed: int) -> None:
    try:
        made = parse_space(raw, "The space")
        made.check(FROZEN)
    except RecipeError as refused:
        message = str(refused)
    else:
        message = ""
    if message:
        assert message.startswith("The space ")
        assert not raw or any(key in message for key in raw)
        return
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    values = made.suggest(trial)
    assert made.values(trial.params) == values
    try:
        recipe = made.apply(FROZEN, values)
    except RecipeError:  # each value is possible, but not all together
        assert len(values) > 1
        return
    assert parse_recipe(recipe.model_dump(mode="json"), "again") == recipe
    labels = made.labels_of(recipe)
    assert labels is not None
    assert made.apply(FROZEN, made.values(labels)) == recipe


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "names no parameter"),
        (
            {"head.dropout": 0.3},
            'head.dropout: must be a table of its own, with quotes round the key: ["head.dropout"]',
        ),
        ({"head.dropout": {"low": 0}}, 'head.dropout: needs type = "float", "int", "categorical"'),
        ({"head.dropout": {"type": "real"}}, 'needs type = "float", "int", "categorical"'),
        ({"head.dropout": {"type": "float", "low": 0.0}}, "head.dropout: high: Field required"),
        ({"head.dropout": {"type": "float", "low": 0.5, "high": 0.1}}, "low must be below high, received low = 0.5"),
        ({"a": {"type": "float", "low": 0.0, "high": 1.0, "log": True}}, "log needs a low above 0"),
        ({"a": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.3}}, "step must divide high - low"),
        (
            {"a": {"type": "float", "low": 0.0, "high": 1.0, "stepp": 1}},
            "allowed for float: high, log, low, step, type",
        ),
        ({"a": {"type": "int", "low": 0.5, "high": 2}}, "a: low: Input should be a valid integer"),
        ({"a": {"type": "categorical", "choices": []}}, "a: choices: List should have at least 1 item"),
        ({"a": {"type": "categorical", "choices": [1, 1]}}, "every choice must differ"),
    ],
)
def test_mistakes_in_a_space(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_space(raw, "The space")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "parameter", "message"),
    [
        ("head.dropot", {"type": "float", "low": 0.0, "high": 0.5}, "Did you mean head.dropout?"),
        ("hed.dropout", {"type": "float", "low": 0.0, "high": 0.5}, "a recipe has no hed. Did you mean head?"),
        ("stages.3.epochs", {"type": "int", "low": 1, "high": 5}, "stages are counted from 0 to 0. Received: 3"),
        ("stages.0", {"type": "categorical", "choices": [1]}, "is a table; name one value in it: stages.0."),
        ("name", {"type": "categorical", "choices": ["a"]}, "is a name, which changes nothing"),
        ("batch_size.a", {"type": "int", "low": 2, "high": 5}, "batch_size is a single value"),
        ("head.dropout", {"type": "float", "low": 0.0, "high": 1.0}, "head.dropout: Input should be less than 1"),
        ("head.pooling", {"type": "categorical", "choices": ["avg", "sum"]}, "'avg' or 'max'. Received: 'sum'"),
        ("stages.0.unfreeze", {"type": "categorical", "choices": [-1]}, "a list of block names"),
    ],
)
def test_what_a_recipe_cannot_take(key: str, parameter: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_space({key: parameter}, "The space").check(FROZEN)
    assert message in str(caught.value)
    assert "for the recipe vgg16-frozen" in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    wrong = space(head__dropout={"type": "float", "low": 0.0, "high": 3.0}, nmae={"type": "int", "low": 1, "high": 2})
    with pytest.raises(RecipeError, match=r"2 mistake\(s\)"):
        wrong.check(FROZEN)


def test_values_that_are_lists_and_tables() -> None:
    choices = [[], [64], "none", 4, True]
    made = space(x={"type": "categorical", "choices": choices})
    labels = ["[]", "[64]", "none", "4", "true"]
    assert [made.suggest(FixedTrial({"x": label}))["x"] for label in labels] == choices
    parameter = made.parameters["x"]
    assert isinstance(parameter, Choices)
    assert [parameter.label(choice) for choice in choices] == labels
    assert parameter.label([65]) is None


def test_what_a_range_holds() -> None:
    grid = FloatRange(type="float", low=0.0, high=0.7, step=0.1)
    assert [grid.label(value) for value in (0.3, 0.7, 0, 0.35, 0.8, "a", True)] == [
        0.3,
        0.7,
        0,
        None,
        None,
        None,
        None,
    ]
    assert IntRange(type="int", low=1, high=9, step=4).label(5) == 5
    assert IntRange(type="int", low=1, high=9, step=4).label(6) is None


def test_a_recipe_outside_its_space() -> None:
    narrow = space(head__dropout={"type": "float", "low": 0.5, "high": 0.6})
    assert narrow.labels_of(FROZEN) is None


def test_files(tmp_path: Any) -> None:
    path = tmp_path / "space.toml"
    path.write_text('["head.dropout"]\ntype = "float"\nlow = 0.0\nhigh = 0.5\n')
    assert list(load_space(str(path)).parameters) == ["head.dropout"]
    path.write_text("[a\n")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_space(str(path))
    with pytest.raises(RecipeError, match="cannot be read"):
        load_space(str(tmp_path / "absent.toml"))
    with pytest.raises(RecipeError, match="There are vgg16-frozen, vgg16-top4"):
        load_space("efficientnetb0-scratch")
