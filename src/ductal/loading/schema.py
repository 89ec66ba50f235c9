"""The shape of `run.json` and `metrics.json`, as far as reports and comparisons rely on it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ductal.errors import RunError

Count = int | None
Text = str | None


class _Part(BaseModel):
    """What is not named here may be there, and is shown as it is."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Cohort(_Part):
    name: Text = None
    fingerprint: Text = None
    synthetic: bool | None = None
    has_patients: bool | None = None
    n_patches: Count = None
    n_patients: Count = None
    n_positive: Count = None
    quarantined: dict[str, int] | None = None
    selection: dict[str, int | None] | None = None
    notes: list[str] | None = None
    spacing_um: float | None = None


class _Split(_Part):
    id: Text = None
    name: Text = None
    fold: Count = None
    counts: dict[str, dict[str, int]] | None = None
    trained_on: Count = None
    cross_fitted: bool | None = None
    notes: list[str] | None = None


class _Audit(_Part):
    checks: list[dict[str, Any]] | None = None
    notes: list[str] | None = None


class _Run(_Part):
    name: str = Field(max_length=200)
    cohort: _Cohort
    recipe: dict[str, Any] | None = None
    split: _Split | None = None
    audit: _Audit | None = None
    control: bool | None = None
    ensemble: bool | None = None
    members: list[dict[str, Any]] | None = None
    seed: Count = None
    test_opened: Count = None
    evaluated_on: list[str] | None = None
    alarms: list[str] | None = None
    timings: dict[str, float] | None = None
    versions: dict[str, str] | None = None
    parameters: dict[str, Count] | None = None
    weights: Text = None
    precision: Text = None
    device: Text = None
    finished: Text = None


class _Figures(_Part):
    threshold: float = Field(allow_inf_nan=False)


class _Metrics(_Part):
    val: _Figures
    test: _Figures | None = None


def check_run(run: dict[str, Any], metrics: dict[str, Any] | None) -> None:
    """Raises RunError, with the reason alone, where a record is not what this package writes; no metrics is fine."""
    try:
        _Run.model_validate(run)
        if metrics is not None:
            _Metrics.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
