"""The shape of a run's JSON files, as far as reports, comparisons, evaluations and ensembles rely on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ductal.errors import RunError

Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Figure = float | None  # null where the data do not define it
Text = str | None
Bounds = Annotated[list[float], Field(min_length=2, max_length=2)] | None


class _Part(BaseModel):
    """What is not named here may be there, and is shown as it is.

    Files of older versions lack some of it, so most has a default; null is taken only where it means something.
    """

    model_config = ConfigDict(extra="allow", strict=True)


class _Cohort(_Part):
    name: Text = None
    fingerprint: Text = None
    synthetic: bool | None = None
    has_patients: bool | None = None
    n_patches: Count = 0
    n_patients: Count = 0
    n_positive: Count = 0
    quarantined: dict[str, Count] = {}
    selection: dict[str, Count | None] = {}
    notes: list[str] = []
    spacing_um: Finite | None = None


class _Counts(_Part):
    patients: Count
    patches: Count
    positives: Count


class _Split(_Part):
    id: Text = None
    name: Text = None
    fold: Count | None = None
    counts: dict[str, _Counts] = {}
    trained_on: Count = 0
    cross_fitted: bool | None = None
    notes: list[str] = []


class _Check(_Part):
    name: str = ""
    what: str = ""
    status: str = ""
    pairs: Count = 0
    examples: list[str] = []


class _Audit(_Part):
    checks: list[_Check] = []
    notes: list[str] = []


class _Stage(_Part):
    early_stopping: dict[str, Any] | None = None


class _Recipe(_Part):
    stages: list[_Stage] = []
    head: dict[str, Any] | None = None
    augment: dict[str, Any] | None = None
    members: list[dict[str, Any]] | None = None


class _Parameters(_Part):
    total: Count | None = None
    trainable_last_stage: Count | None = None


class _Run(_Part):
    name: str = Field(max_length=200)
    cohort: _Cohort
    recipe: _Recipe = _Recipe()
    split: _Split = _Split()
    audit: _Audit | None = None
    control: bool | None = None
    ensemble: bool | None = None
    members: list[dict[str, Any]] | None = None
    seed: Count | None = None
    test_opened: Count = 0
    evaluated_on: list[str] = []
    alarms: list[str] = []
    timings: dict[str, Finite] = {}
    versions: dict[str, str] = {}
    parameters: _Parameters | None = None
    weights: Text = None
    precision: Text = None
    device: Text = None
    finished: Text = None


class _KnownCohort(_Cohort):
    name: str
    fingerprint: str


class _KnownSplit(_Split):
    id: str
    name: str


class _Trained(_Run):
    """What the final evaluation needs besides."""

    cohort: _KnownCohort
    split: _KnownSplit
    test_opened: Count
    timings: dict[str, Finite]


class _KnownParameters(_Parameters):
    total: Count


class _Member(_Trained):
    """What an ensemble needs besides."""

    recipe: _Recipe
    seed: Count
    alarms: list[str]
    parameters: _KnownParameters
    weights: str
    precision: str
    finished: str


class _Point(_Part):
    prevalence: Figure
    roc_auc: Figure
    average_precision: Figure
    brier: Figure
    accuracy: Figure
    balanced_accuracy: Figure
    precision: Figure
    recall: Figure
    specificity: Figure
    f1: Figure


class _Intervals(_Part):
    level: Finite
    method: str
    replicates: Count
    minimum_patients: Count
    patients: Count
    patches_without_patient: Count
    at_threshold: dict[str, Bounds]
    at_half: dict[str, Bounds] = Field(alias="at_0.5")
    per_patient: dict[str, Bounds]


class _Scores(_Part):
    ece: Figure
    mce: Figure
    brier: Figure
    nll: Figure
    intervals: dict[str, Bounds] | None = None


class _Calibrated(_Part):
    before: _Scores | None = None
    after: _Scores | None = None
    after_is: str = ""

    @model_validator(mode="after")
    def _both(self) -> _Calibrated:
        if self.after is not None and (self.before is None or not self.after_is):
            raise ValueError("'after' stands without 'before' or 'after_is'")
        return self


class _Sensitivity(_Part):
    sensitivity: Figure


class _Abstention(_Part):
    low: Figure
    high: Figure
    coverage: Figure
    error_rate: Figure


class _Decision(_Part):
    sensitivity_at_specificity: dict[str, _Sensitivity]
    aurc: Figure
    abstention: _Abstention | None = None


class _Figures(_Part):
    threshold: Finite
    at_threshold: _Point
    at_half: _Point = Field(alias="at_0.5")
    per_patient: dict[str, Figure]
    intervals: _Intervals | None = None
    calibration: _Calibrated | None = None
    decision: _Decision | None = None

    @field_validator("intervals", "calibration", "decision", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == {} else value


class _Metrics(_Part):
    val: _Figures
    test: _Figures | None = None
    d4: bool = False


class _Fit(_Part):
    fit: Literal["temperature", "platt"] = "temperature"


class _Limits(_Part):
    low: Figure = None
    high: Figure = None
    max_error: Finite = 0.0


class _Earlier(_Part):
    threshold: Figure = None


class _Calibration(_Part):
    """calibration.json; `ductal.inference.predictor.read_settings` reads what predictions depend on."""

    threshold: Finite
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    bias: Finite = 0.0
    calibration: _Fit = _Fit()
    threshold_rule: Text = None
    abstention: _Limits = _Limits()
    earlier_thresholds: list[_Earlier] = []


class _MemberCalibration(_Calibration):
    labels: dict[str, str]
    patch_size: Count
    spacing_um: Finite | None


def check_run(run: dict[str, Any], metrics: dict[str, Any] | None) -> None:
    """Raises RunError, with the reason alone, where a record is not what this package writes; no metrics is fine."""
    _validated(_Run.model_validate, run)
    if metrics is not None:
        _validated(_Metrics.model_validate, metrics)


def check_trained(run: dict[str, Any]) -> None:
    """Raises RunError, with the reason alone, where run.json lacks what the final evaluation needs."""
    _validated(_Trained.model_validate, run)


def check_member(run: dict[str, Any], calibration: dict[str, Any]) -> None:
    """Raises RunError, with the reason alone, where run.json or calibration.json lacks what an ensemble needs."""
    _validated(_Member.model_validate, run)
    _validated(_MemberCalibration.model_validate, calibration)


def check_calibration(calibration: dict[str, Any]) -> None:
    """Raises RunError, with the reason alone, where calibration.json is not what this package writes."""
    _validated(_Calibration.model_validate, calibration)


def _validated(validate: Callable[[dict[str, Any]], BaseModel], content: dict[str, Any]) -> None:
    try:
        validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
