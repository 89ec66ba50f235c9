"""The timed choice of precision: what it picks, that it is remembered, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from ductal.data.cohort import Cohort
from ductal.data.splitting import make_split
from ductal.training import precision
from ductal.training.precision import Choice, choose_precision
from ductal.training.recipe import Recipe
from ductal.training.recipe_file import load_recipe
from ductal.training.trainer import train

from .small_training import needs_imagenet, quiet, small_recipe, stage

AUTO = small_recipe(precision="auto")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DUCTAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "precision.json"


def timed(monkeypatch: pytest.MonkeyPatch, **speeds: float) -> list[str]:
    """Let the probe find these speeds; returns the list of what it timed."""
    calls: list[str] = []

    def speed(recipe: Recipe, name: str, xla: bool) -> float:
        calls.append(f"{recipe.backbone} {name}")
        return speeds[name + ("_xla" if xla else "")]

    monkeypatch.setattr(precision, "_images_per_second", speed)
    return calls


@pytest.mark.parametrize(
    ("half", "chosen"), [(50.0, "mixed_bfloat16"), (21.0, "float32"), (19.0, "float32"), (22.1, "mixed_bfloat16")]
)
def test_16_bits_must_be_clearly_faster(
    half: float, chosen: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, float32=20.0, mixed_bfloat16=half)
    expected = Choice(chosen, False, {"float32": 20.0, "mixed_bfloat16": half}, "probe")
    assert choose_precision(AUTO) == expected
    assert cache.is_file()


def test_the_probe_runs_once_per_backbone_and_input_size(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = timed(monkeypatch, float32=20.0, mixed_bfloat16=50.0)
    first = choose_precision(AUTO)
    again = choose_precision(AUTO.model_copy(update={"name": "other", "batch_size": 8}))
    assert len(calls) == 2
    assert (again.precision, again.images_per_second, again.reason) == (
        first.precision, first.images_per_second, "probe, cached",
    )  # fmt: skip
    choose_precision(AUTO.model_copy(update={"input_px": 64}))
    choose_precision(load_recipe("efficientnetb0-scratch"))
    assert len(calls) == 6
    assert len(json.loads(cache.read_text())) == 3


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"precision": "float32"}}'])
def test_a_damaged_cache_is_measured_anew(content: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = timed(monkeypatch, float32=20.0, mixed_bfloat16=5.0)
    choose_precision(AUTO)
    cache.write_text(content.replace('"a"', json.dumps(next(iter(json.loads(cache.read_text()))))))
    assert choose_precision(AUTO).precision == "float32"
    assert len(calls) == 4


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, float32=20.0, mixed_bfloat16=50.0)
    (tmp_path / "cache").write_text("in the way")
    assert choose_precision(AUTO).precision == "mixed_bfloat16"
    assert not cache.exists()


def test_a_recipe_that_names_its_precision_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = timed(monkeypatch)
    assert choose_precision(small_recipe(precision="mixed_bfloat16")) == Choice("mixed_bfloat16", False, {}, "recipe")
    assert not calls


@pytest.mark.parametrize(("capability", "half"), [((8, 6), "mixed_bfloat16"), ((7, 0), "mixed_float16")])
def test_a_gpu_may_take_xla(
    capability: tuple[int, int], half: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    details = {"device_name": "A GPU", "compute_capability": capability}
    monkeypatch.setattr(precision.tf.config, "list_physical_devices", lambda _: ["gpu"])
    monkeypatch.setattr(precision.tf.config.experimental, "get_device_details", lambda _: details)
    speeds: dict[str, Any] = {"float32": 100.0, "float32_xla": 120.0, half: 250.0, f"{half}_xla": 300.0}
    timed(monkeypatch, **speeds)
    choice = choose_precision(AUTO)
    assert (choice.precision, choice.xla) == (half, True)
    assert "A GPU" in cache.read_text()


def test_the_real_probe_times_both_and_leaves_no_policy_behind(cache: Path) -> None:
    choice = choose_precision(AUTO.model_copy(update={"input_px": 32}))
    assert set(choice.images_per_second) >= {"float32", "mixed_bfloat16"}
    assert min(choice.images_per_second.values()) > 0
    assert keras.mixed_precision.dtype_policy().name == "float32"
    assert cache.is_file()


def test_what_the_device_cannot_do_is_not_chosen(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def speed(recipe: Recipe, name: str, xla: bool) -> float:  # noqa: ARG001
        if name == "mixed_bfloat16":
            raise precision.tf.errors.ResourceExhaustedError(None, None, "no memory")
        return 20.0

    monkeypatch.setattr(precision, "_images_per_second", speed)
    assert choose_precision(AUTO).images_per_second == {"float32": 20.0, "mixed_bfloat16": 0.0}
    assert choose_precision(AUTO).precision == "float32"
    assert cache.is_file()


@needs_imagenet
def test_a_run_records_the_choice_and_its_model_computes_in_float32(
    tiny_cohort: Cohort, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, float32=20.0, mixed_bfloat16=50.0)
    recipe = small_recipe(stage(unfreeze=2), precision="auto", input_px=32)
    split = make_split(tiny_cohort, "random")
    run = train(recipe, tiny_cohort, split, tmp_path / "run", progress=quiet())
    assert cache.is_file()
    record = json.loads((run / "run.json").read_text())
    assert record["recipe"]["precision"] == "auto"
    assert record["precision"] == "mixed_bfloat16"
    assert record["precision_choice"]["images_per_second"] == {"float32": 20.0, "mixed_bfloat16": 50.0}
    model = keras.models.load_model(run / "model.keras")
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    # Threshold and saved probabilities are of the model that was saved, not of the one in 16 bits.
    probs = pd.read_parquet(run / "predictions" / "val.parquet")["prob"]
    rows = split.rows(tiny_cohort, "val")
    np.testing.assert_allclose(np.asarray(model(tiny_cohort.pixels[rows]))[:, 0], probs, atol=1e-5)
