"""Recipes are read from TOML files, and a mistake in one is told with its key and what is allowed there."""

from __future__ import annotations

import difflib
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ductal.errors import RecipeError
from ductal.training.recipe import (
    Augment,
    EarlyStopping,
    Encoder,
    Head,
    RandAugment,
    Recipe,
    ReduceLROnPlateau,
    Stage,
)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("ductal.training") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by the name of a shipped one, or from a TOML file of your own.

    Raises:
        RecipeError: no such recipe, not TOML, or a key that is unknown or has a wrong value;
            the message names the key and what is allowed.
    """
    text, origin = _read(name_or_path)
    settings = parse_toml(text, origin)
    encoder = settings.get("encoder")
    if isinstance(encoder, dict) and isinstance(encoder.get("file"), str):
        encoder["file"] = str((Path(name_or_path).parent / encoder["file"]).absolute())  # read from anywhere
    return parse_recipe(settings, origin)


def split_of_study(name_or_path: str | Path) -> str | None:
    """Identity of the split of the study that wrote a recipe (`ductal.tune.results.header`); None for any other."""
    found = re.search(r"^# Cohort .+, fingerprint \w+, split (\w+)\.$", _read(name_or_path)[0], re.MULTILINE)
    return found[1] if found else None


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """What a TOML file says; `origin` is used in the message. Raises RecipeError."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOML allows numbers and nesting that Python does not
        raise RecipeError(f"{origin} is not valid TOML: {error}. Correct that line and try again.") from error


def parse_recipe(settings: dict[str, Any], origin: str) -> Recipe:
    """Validate settings read from `origin` (used in messages). Raises RecipeError."""
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        lines = _explain(error)
        raise RecipeError(f"{origin} has {len(lines)} mistake(s):\n  - " + "\n  - ".join(lines)) from error


def _read(name_or_path: str | Path) -> tuple[str, str]:
    path = Path(name_or_path)
    if path.suffix == ".toml":
        try:
            return path.read_text(encoding="utf-8"), f"The recipe {path}"
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"The recipe {path} cannot be read: {error}. Check the path.") from error
    names = recipe_names()
    if str(name_or_path) not in names:
        near = difflib.get_close_matches(str(name_or_path), names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise RecipeError(
            f"There is no recipe {name_or_path}.{hint} Shipped recipes: {', '.join(names)}; "
            "or give the path of a .toml file of your own."
        )
    file = resources.files("ductal.training") / "recipes" / f"{name_or_path}.toml"
    return file.read_text(encoding="utf-8"), f"The shipped recipe {name_or_path}"


def _explain(error: ValidationError) -> list[str]:
    lines: dict[str, str] = {}
    for problem in error.errors():
        place = tuple(part for part in problem["loc"] if not _is_union_branch(part))
        key = ".".join(str(part) for part in place) or "recipe"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown key; allowed here: {', '.join(_allowed_keys(place[:-1]))}"
        elif problem["type"] != "missing" and place and not isinstance(problem["input"], dict):
            message = f"{message}. Received: {problem['input']!r}"
        lines.setdefault(key, f"{key}: {message}")
        if "unfreeze" in place:
            lines[key] = (
                f'{key}: must be "none", "all", a number of layers or a list of block names. '
                f"Received: {problem['input']!r}"
            )
    return list(lines.values())


def _is_union_branch(part: int | str) -> bool:
    return isinstance(part, str) and ("literal[" in part or "constrained-" in part or "list[" in part)


def _allowed_keys(place: tuple[int | str, ...]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {
        "head": Head,
        "encoder": Encoder,
        "augment": Augment,
        "randaugment": RandAugment,
        "stages": Stage,
        "early_stopping": EarlyStopping,
        "reduce_lr": ReduceLROnPlateau,
    }
    named = [part for part in place if isinstance(part, str)]
    return sorted(tables[named[-1]].model_fields if named else Recipe.model_fields)
