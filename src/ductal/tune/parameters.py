"""How one key of a recipe may vary: a range of real or whole numbers, or a list of choices."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

if TYPE_CHECKING:
    from optuna.trial import Trial

_CLOSE = 1e-9  # steps in decimal fractions are not exact


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Range(_Settings):
    log: bool = False

    @model_validator(mode="after")
    def _possible(self) -> _Range:
        low, high, step = self.bounds
        if not low < high:
            raise ValueError(f"low must be below high, received low = {low} and high = {high}")
        if self.log and (low <= 0 or step is not None):
            raise ValueError("log needs a low above 0 and no step")
        if step is not None and not _on_grid(high, low, step):
            raise ValueError(f"step must divide high - low, received {step} for {low} to {high}")
        return self

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float, float | None]:
        """Lowest value, highest value, step."""

    def extremes(self) -> list[Any]:
        """The values to try a recipe with."""
        return list(self.bounds[:2])

    def label(self, value: Any) -> Any:
        """`value` as the study stores it; None where the range does not hold it."""
        low, high, step = self.bounds
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            return None
        return None if step is not None and not _on_grid(value, low, step) else value

    def value(self, label: Any) -> Any:
        """The reverse of `label`."""
        return label


class FloatRange(_Range):
    """A real number from `low` to `high`, even on a logarithmic scale with `log`, or on a grid of `step`."""

    type: Literal["float"]
    low: float
    high: float
    step: float | None = Field(default=None, gt=0)

    @property
    def bounds(self) -> tuple[float, float, float | None]:
        """low, high, step."""
        return self.low, self.high, self.step

    def extremes(self) -> list[Any]:
        """The ends, and a value between: a key that takes whole numbers refuses that."""
        between = self.low + (self.step or 0.37 * (self.high - self.low))
        return [self.low, self.high, between]

    def suggest(self, trial: Trial, key: str) -> float:
        """Draw."""
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)


class IntRange(_Range):
    """A whole number from `low` to `high`, both included."""

    type: Literal["int"]
    low: int
    high: int
    step: int | None = Field(default=None, gt=0)

    @property
    def bounds(self) -> tuple[int, int, int | None]:
        """low, high, step."""
        return self.low, self.high, self.step

    def label(self, value: Any) -> int | None:
        """`value` as the study stores it; None where the range does not hold it."""
        found = super().label(value)
        return None if found is None or found != int(found) else int(found)

    def suggest(self, trial: Trial, key: str) -> int:
        """Draw."""
        return trial.suggest_int(key, self.low, self.high, step=self.step or 1, log=self.log)


class Choices(_Settings):
    """One of several values, of any kind that TOML has. A study knows each by its text."""

    type: Literal["categorical"]
    choices: list[Any] = Field(min_length=1)

    @field_validator("choices")
    @classmethod
    def _different(cls, choices: list[Any]) -> list[Any]:
        if len({_text(choice) for choice in choices}) != len(choices):
            raise ValueError("every choice must differ from the others")
        return choices

    def extremes(self) -> list[Any]:
        """All of them."""
        return self.choices

    def suggest(self, trial: Trial, key: str) -> Any:
        """Draw."""
        return self.value(trial.suggest_categorical(key, [_text(choice) for choice in self.choices]))

    def label(self, value: Any) -> str | None:
        """`value` as the study stores it; None where it is not among the choices."""
        # A recipe turns 0 into 0.0 where it wants a real number, and takes false for 0.
        alike = [choice for choice in self.choices if _text(choice) == _text(value)]
        alike += [choice for choice in self.choices if choice == value]
        return _text(alike[0]) if alike else None

    def value(self, label: str) -> Any:
        """The reverse of `label`."""
        return next(choice for choice in self.choices if _text(choice) == label)


Parameter = FloatRange | IntRange | Choices
PARAMETERS = TypeAdapter(dict[str, Annotated[Parameter, Field(discriminator="type")]])


def explain(error: ValidationError) -> list[str]:
    kinds: dict[str, type[BaseModel]] = {"float": FloatRange, "int": IntRange, "categorical": Choices}
    lines: list[str] = []
    for problem in error.errors():
        key, *rest = map(str, problem["loc"])
        kind = rest.pop(0) if rest and rest[0] in kinds else ""
        place = ": ".join([key, *rest[:1]])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown setting; allowed for {kind}: {', '.join(sorted(kinds[kind].model_fields))}"
        elif problem["type"].startswith("union_tag"):
            message = f"needs type = {', '.join(map(json.dumps, kinds))}. Received: {problem['input']!r}"
        elif problem["type"] in ("model_type", "model_attributes_type"):
            message = f"must be a table of its own, with quotes round the key: [{json.dumps(key)}]"
        elif problem["type"] not in ("missing", "value_error"):
            message = f"{message}. Received: {problem['input']!r}"
        lines.append(f"{place}: {message}")
    return list(dict.fromkeys(lines))


def _on_grid(value: float, low: float, step: float) -> bool:
    steps = (value - low) / step
    return math.isclose(steps, round(steps), abs_tol=_CLOSE, rel_tol=_CLOSE)


def _text(choice: Any) -> str:
    return choice if isinstance(choice, str) else cast(str, json.dumps(choice, sort_keys=True))
