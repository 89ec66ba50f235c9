"""Search spaces: a TOML file says which keys of a recipe vary, and between what; checked before anything runs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ductal.errors import RecipeError
from ductal.training.combinations import without_idle
from ductal.training.recipe import Recipe
from ductal.training.recipe_file import parse_recipe, parse_toml
from ductal.tune.parameters import PARAMETERS, Parameter, explain

if TYPE_CHECKING:
    from optuna.trial import Trial

UNTUNABLE = ("name", "title")  # what a recipe is called does not change what it does


@dataclass(frozen=True)
class Space:
    """Which keys of a recipe vary, by dotted path (``stages.0.learning_rate``), and between what."""

    parameters: dict[str, Parameter]
    origin: str  # for messages

    def check(self, recipe: Recipe) -> None:
        """Try the ends of every range, and every choice, in `recipe`.

        Raises:
            RecipeError: a path that the recipe does not have, or a value that it refuses; all mistakes at once.
        """
        mistakes: list[str] = []
        settings = recipe.model_dump(mode="json")
        for key, parameter in self.parameters.items():
            problem = _problem_of_path(settings, key)
            if problem:
                mistakes.append(f"{key}: {problem}")
                continue
            for value in parameter.extremes():
                try:
                    self.apply(recipe, {key: value})
                except RecipeError as error:
                    lines = [line.removeprefix("  - ") for line in str(error).splitlines()[1:]]
                    mistakes += [line if key in line else f"{key} = {value!r}: {line}" for line in lines]
                    break
        if mistakes:
            lines = list(dict.fromkeys(mistakes))
            raise RecipeError(
                f"{self.origin} has {len(lines)} mistake(s) for the recipe {recipe.name}:\n  - "
                + "\n  - ".join(lines)
            )

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """A value for every key, drawn by the study's sampler."""
        return {key: parameter.suggest(trial, key) for key, parameter in self.parameters.items()}

    def values(self, labels: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial's stored parameters stand for."""
        return {key: self.parameters[key].value(label) for key, label in labels.items()}

    def labels_of(self, recipe: Recipe) -> dict[str, Any] | None:
        """The recipe itself as parameters of a trial; None where it lies outside the space."""
        settings = recipe.model_dump(mode="json")
        labels = {key: parameter.label(_get(settings, key.split("."))) for key, parameter in self.parameters.items()}
        return None if None in labels.values() else labels

    def apply(self, recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
        """`recipe` with other values, validated as if it had been read from a file.

        What a value leaves without effect, such as `reduce_lr` beside a cosine, is dropped, for each key is drawn for
        itself. What another value gives an effect, such as `weight_decay` to AdamW, has its default unless it varies,
        too.

        Raises:
            RecipeError: the values do not go together.
        """
        settings = without_idle(json.loads(recipe.model_dump_json()))
        for key, value in values.items():
            *path, last = key.split(".")
            place = _get(settings, path)
            key_there: Any = int(last) if isinstance(place, list) else last
            place[key_there] = value
        return parse_recipe(without_idle(settings), f"A recipe drawn from {self.origin}")

    def as_json(self) -> dict[str, Any]:
        """For the study's record."""
        return {key: parameter.model_dump(mode="json") for key, parameter in self.parameters.items()}


def space_names() -> list[str]:
    """Names of the spaces that come with the package: those of the recipes they are for."""
    folder = resources.files("ductal.tune") / "spaces"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_space(name_or_path: str) -> Space:
    """Read a space from a TOML file, or the shipped one of a recipe by the recipe's name.

    Raises:
        RecipeError: there is none, it is not TOML, or a setting is unknown or impossible; the message names the key
            and what is allowed.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        origin = f"The search space {path}"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{origin} cannot be read: {error}. Check the path.") from error
    elif name_or_path in space_names():
        origin = f"The shipped search space {name_or_path}"
        text = (resources.files("ductal.tune") / "spaces" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    else:
        raise RecipeError(
            f"There is no shipped search space {name_or_path}. There are {', '.join(space_names())}; "
            "for another recipe name a .toml file of your own with --space, see docs/tuning.md."
        )
    settings = parse_toml(text, origin)
    return parse_space(settings, origin)


def parse_space(settings: dict[str, Any], origin: str) -> Space:
    """Validate settings read from `origin` (used in messages). Raises RecipeError."""
    try:
        parameters = PARAMETERS.validate_python(settings)
    except ValidationError as error:
        lines = explain(error)
        raise RecipeError(f"{origin} has {len(lines)} mistake(s):\n  - " + "\n  - ".join(lines)) from error
    if not parameters:
        raise RecipeError(
            f'{origin} names no parameter. A table such as ["head.dropout"] is one, see docs/tuning.md.'
        )
    return Space(parameters, origin)


def _problem_of_path(settings: dict[str, Any], key: str) -> str | None:
    """Why `key` leads to nothing that can vary in a recipe's settings; None where it does."""
    place: Any = settings
    walked: list[str] = []
    for part in key.split("."):
        where = ".".join(walked) or "a recipe"
        if isinstance(place, dict) and part not in place:
            near = difflib.get_close_matches(part, place, n=1)
            hint = f" Did you mean {'.'.join([*walked, near[0]])}?" if near else ""
            return f"{where} has no {part}.{hint} Allowed: {', '.join(sorted(set(place) - set(UNTUNABLE)))}"
        if isinstance(place, list) and not (part.isdecimal() and int(part) < len(place)):
            return f"{where} are counted from 0 to {len(place) - 1}. Received: {part}"
        if not isinstance(place, dict | list):
            return f"{where} is a single value"
        place = _get(place, [part])
        walked.append(part)
    if walked[-1] in UNTUNABLE:
        return "is a name, which changes nothing in a training"
    if isinstance(place, dict) or (isinstance(place, list) and place and isinstance(place[0], dict)):
        inside = sorted(place) if isinstance(place, dict) else [str(number) for number in range(len(place))]
        return f"is a table; name one value in it: {', '.join(f'{key}.{name}' for name in inside)}"
    return None


def _get(settings: Any, path: Sequence[str]) -> Any:
    for part in path:
        settings = settings[int(part) if isinstance(settings, list) else part]
    return settings
