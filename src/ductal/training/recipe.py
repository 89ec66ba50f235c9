"""Recipes: what says everything about an experiment, and is checked before anything runs.

They are read from TOML files by `ductal.training.recipe_file`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from ductal.errors import RecipeError, RunError
from ductal.evaluation.decision import ThresholdRule
from ductal.inference.encoder import EncoderInput
from ductal.training import combinations
from ductal.training.backbones import BACKBONES, SMALLEST_PX

# The six models of the comparison, in the order of its table.
DEFAULT_RECIPES = (
    "vgg16-frozen",
    "vgg16-top4",
    "efficientnetb0-scratch",
    "efficientnetb3-scratch",
    "vgg16-partial",
    "vgg16-full",
)
QUICK_VIEWS = 2  # more views than epochs would cost more than they save
Monitor = Literal["val_loss", "val_accuracy", "val_balanced_accuracy", "val_auc"]
ONNX = "onnx"  # the backbone that is a file of the user's
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Head(_Settings):
    """What stands on the backbone: pooling, hidden layers, dropout, then one sigmoid unit."""

    pooling: Literal["avg", "max"] = "avg"
    batch_norm: bool = False  # of the pooled features; VGG's are far from unit scale
    units: list[PositiveInt] = []
    dropout: Fraction = 0.0


class RandAugment(_Settings):
    """As many `operations`, drawn for each patch from those of `ductal.training.randaugment`, up to `strength`."""

    operations: int = Field(default=2, ge=1, le=9)
    strength: float = Field(default=0.3, gt=0.0, le=1.0)


class Encoder(EncoderInput):
    """A frozen network in an ONNX file, relative to the recipe's folder; see `EncoderInput` for the rest."""

    file: str = Field(min_length=1, max_length=4000)


class Augment(_Settings):
    """Random changes to training patches; validation and test patches never see them."""

    d4: bool = True  # the 8 rotations and flips of the square, labels preserved
    rotation_degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    zoom: Fraction = 0.0
    shift: Fraction = 0.0  # of the patch side
    stain: Fraction = 0.0  # jitter of haematoxylin and eosin in optical density (Tellez et al. 2019)
    randaugment: RandAugment | None = None  # some further operations, drawn for each patch


class EarlyStopping(_Settings):
    """Stop a stage after `patience` epochs without improvement, and go back to its best epoch."""

    monitor: Monitor = "val_auc"
    patience: PositiveInt = 4


class ReduceLROnPlateau(_Settings):
    """Multiply the learning rate by `factor` after `patience` epochs without improvement."""

    monitor: Monitor = "val_auc"
    patience: PositiveInt = 2
    factor: float = Field(default=0.3, gt=0.0, lt=1.0)
    min_learning_rate: float = Field(default=1e-6, gt=0.0)


class Stage(_Settings):
    """One phase of training with its own set of trainable layers.

    `unfreeze` is "none" (head only), "all", a number (the last n layers of the base), or a
    list of block names (every base layer whose name starts with one of them).
    """

    name: str = Field(min_length=1)
    unfreeze: Literal["none", "all"] | PositiveInt | Annotated[list[str], Field(min_length=1)]
    epochs: PositiveInt
    quick_epochs: PositiveInt = 1
    learning_rate: float = Field(gt=0.0, le=1.0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = Field(default=0.0, ge=0.0, lt=1.0)  # of "adamw", where it is 1e-4 when left out
    warmup_steps: int = Field(default=0, ge=0)  # batches over which the rate rises from 0; a third of them at most
    schedule: Literal["plateau", "cosine"] = "plateau"  # "cosine" falls to 0 over all epochs of the stage
    early_stopping: EarlyStopping = EarlyStopping()
    reduce_lr: ReduceLROnPlateau | None = None  # of "plateau", where it has its defaults when left out

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, settings: Any) -> Any:
        return combinations.filled_in(settings) if isinstance(settings, dict) else settings

    @model_validator(mode="after")
    def _everything_has_an_effect(self) -> Stage:
        return combinations.accept(self, combinations.stage_mistakes(self))


class Recipe(_Settings):
    """All settings of one model and its training."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    backbone: Literal[(*BACKBONES, ONNX)]  # type: ignore[valid-type]
    weights: Literal["imagenet", "random", "file"]  # file: that of `encoder`
    input_px: int = Field(default=50, ge=SMALLEST_PX, le=600)
    quick_input_px: int | None = Field(default=None, ge=SMALLEST_PX, le=600)
    batch_size: int = Field(default=64, ge=2, le=4096)
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"  # auto: what is timed fastest
    class_weights: bool = False
    # How patches are drawn: each once an epoch; both classes equally often; and within a class each patient
    sampling: Literal["patches", "classes", "patients"] = "patches"
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    neighbour_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)  # by the share of the 8 neighbours that disagree
    focal_gamma: float = Field(default=0.0, ge=0.0, le=5.0)  # 0 is plain cross-entropy
    mixup: float = Field(default=0.0, ge=0.0, le=10.0)  # alpha of the beta distribution that patches are mixed by
    cutmix: float = Field(default=0.0, ge=0.0, le=10.0)  # the same, of a rectangle from another patch; 0 is none
    ema: Fraction = 0.0  # decay a step of the moving average of the weights that is validated and saved; 0 is none
    threshold: str = "balanced_accuracy"  # rule on validation patients; or sensitivity:0.95, or cost:5
    cached_views: int = Field(default=0, ge=0, le=64)
    head: Head = Head()
    encoder: Encoder | None = None
    augment: Augment = Augment()
    stages: list[Stage] = Field(min_length=1)

    @field_validator("threshold")
    @classmethod
    def _known_rule(cls, text: str) -> str:
        try:
            ThresholdRule.parse(text)
        except RunError as error:
            raise ValueError(str(error)) from error
        return text

    @field_validator("stages")
    @classmethod
    def _unique_stage_names(cls, stages: list[Stage]) -> list[Stage]:
        if len({stage.name for stage in stages}) != len(stages):
            raise ValueError("every stage needs a name of its own")
        return stages

    @model_validator(mode="after")
    def _random_weights_must_train(self) -> Recipe:
        # The notebooks' "EfficientNetB3 from scratch" was a frozen random network: accuracy 0.5551 for ever.
        if self.weights == "random":
            for stage in self.stages:
                if stage.unfreeze != "all":
                    raise ValueError(
                        f'stage "{stage.name}" freezes layers of a backbone with random weights, '
                        'which can never learn; use unfreeze = "all" or weights = "imagenet"'
                    )
        return self

    @model_validator(mode="after")
    def _settings_go_together(self) -> Recipe:
        return combinations.accept(self, combinations.recipe_mistakes(self))

    @model_validator(mode="after")
    def _encoder_stays_frozen(self) -> Recipe:
        has_encoder = self.encoder is not None
        if has_encoder != (self.backbone == ONNX) or has_encoder != (self.weights == "file"):
            raise ValueError(f'backbone = "{ONNX}", weights = "file" and a table [encoder] go together')
        fits = {
            'unfreeze = "none" in every stage': all(stage.unfreeze == "none" for stage in self.stages),
            "cached_views of at least 1": self.cached_views > 0,
            "no quick_input_px": self.quick_input_px is None,
            'precision = "auto" or "float32"': self.precision in ("auto", "float32"),
            'pooling = "avg" in [head]': self.head.pooling == "avg",
        }
        missing = [rule for rule, kept in fits.items() if has_encoder and not kept]
        if missing:
            raise ValueError(f"an ONNX encoder is frozen and runs as it is, so it needs {', '.join(missing)}")
        return self

    @property
    def rebalanced(self) -> bool:
        """Whether training shows the classes at another prevalence than the patches have."""
        return self.class_weights or self.sampling != "patches"

    def for_profile(self, profile: Literal["quick", "full"]) -> Recipe:
        """The recipe as `profile` runs it: "quick" shortens stages and may use a smaller input.

        Raises:
            RecipeError: there is no such profile.
        """
        if profile == "full":
            return self
        if profile != "quick":
            raise RecipeError(f'The profile must be "quick" or "full". Received: {profile!r}.')
        stages = [stage.model_copy(update={"epochs": stage.quick_epochs}) for stage in self.stages]
        return self.model_copy(
            update={
                "stages": stages,
                "input_px": self.quick_input_px or self.input_px,
                "cached_views": min(self.cached_views, QUICK_VIEWS),
            }
        )
