"""Ensembles and D4 averaging are runs like any other: made, evaluated, compared, moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_training import easy, small_recipe, stage, train_small
from typer.testing import CliRunner

from ductal.cli import app
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.errors import RunError
from ductal.evaluation.compare import leaderboard
from ductal.evaluation.ensemble import combine
from ductal.evaluation.evaluate import evaluate
from ductal.inference.predictor import Predictor


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Cohort) -> Cohort:
    return easy(tiny_cohort)


@pytest.fixture(scope="module")
def split(tiny_cohort: Cohort) -> Split:
    return make_split(tiny_cohort, "random", seed=1)


@pytest.fixture(scope="module")
def runs(cohort: Cohort, split: Split, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("members")
    watch = {"early_stopping": {"monitor": "val_loss"}}
    recipe = small_recipe(stage("all", "all", 3, **watch))
    return [train_small(recipe, cohort, split, folder / f"seed{seed}", seed=seed) for seed in (3, 4)]


def logit(p: np.ndarray) -> np.ndarray:
    p = p.astype(float).clip(1e-7, 1 - 1e-7)
    return np.log(p / (1 - p))


def test_an_ensemble_averages_calibrated_logits(
    runs: list[Path], cohort: Cohort, split: Split, tmp_path: Path
) -> None:
    out = combine(runs, cohort, tmp_path / "both")
    shutil.move(out, tmp_path / "moved")  # it holds its networks
    rows = split.rows(cohort, "val")
    predictor = Predictor.from_run(tmp_path / "moved", exact=True)
    found = predictor.predict(cohort.pixels, rows)
    each = [logit(Predictor.from_run(run, exact=True).predict(cohort.pixels, rows)) for run in runs]
    expected = np.mean(each, axis=0) / predictor.temperature + predictor.bias
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-expected)), atol=1e-3)
    assert ((found > 0.1) & (found < 0.9)).any()
    assert json.loads((tmp_path / "moved" / "calibration.json").read_text())["threshold"] == predictor.threshold
    assert not predictor.d4


def test_d4_is_a_property_of_the_run(runs: list[Path], cohort: Cohort, tmp_path: Path) -> None:
    out = combine(runs[:1], cohort, tmp_path / "turned", d4=True, fast=True)
    predictor = Predictor.from_run(out, exact=True)
    assert predictor.d4
    patches = cohort.pixels[:8]
    turned = np.rot90(patches, axes=(1, 2))
    np.testing.assert_allclose(predictor.predict(turned), predictor.predict(patches), atol=1e-4)


def test_it_is_evaluated_and_compared_like_any_run(
    runs: list[Path], cohort: Cohort, split: Split, tmp_path: Path
) -> None:
    out = combine(runs, cohort, tmp_path / "both", d4=True)
    kept = [shutil.copytree(run, tmp_path / run.name) for run in runs]
    evaluate(out, cohort, split)
    with pytest.MonkeyPatch.context() as patch:  # drawing takes most of the time
        patch.setattr("ductal.evaluation.evaluate.write_findings", lambda *_: None)
        for folder in kept:
            evaluate(folder, cohort, split)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["d4"]
    assert metrics["test"]["calibration"]["after"]["brier"] < 0.25
    for name in ("report.html", "failures/patients.csv", "figures/reliability.png", "figures/risk_coverage.png"):
        assert (out / name).stat().st_size > 0
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "Ensemble of 2 x small, D4 averaged" in text
    card = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert all(f"| Network {number} | VGG16" in card and f", seed {number + 2} |" in card for number in (1, 2))
    assert "cross-fitted" in text
    assert len(leaderboard([out, *kept])) == 3


@pytest.mark.parametrize("name", ["calibration.json labels", "run.json parameters", "run.json weights"])
def test_a_damaged_member_is_refused_before_anything_is_computed(
    runs: list[Path], cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    damaged = Path(shutil.copytree(runs[0], tmp_path / "damaged"))
    file, key = name.split()
    content = json.loads((damaged / file).read_text())
    del content[key]
    (damaged / file).write_text(json.dumps(content))
    monkeypatch.setattr(Predictor, "predict", None)
    with pytest.raises(RunError, match=key):
        combine([damaged, runs[1]], cohort, tmp_path / "out")


def test_what_cannot_be_combined(runs: list[Path], cohort: Cohort, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for chosen in ([], runs[:1], [runs[0], runs[0]]):
        with pytest.raises(RunError, match="two runs or more"):
            combine(chosen, cohort, out)
    with pytest.raises(RunError, match="not a run folder"):
        combine([runs[0], tmp_path], cohort, out)
    other = shutil.copytree(runs[1], tmp_path / "other")
    edit = json.loads((other / "run.json").read_text())
    edit["cohort"]["fingerprint"] = "0" * 40
    (other / "run.json").write_text(json.dumps(edit))
    with pytest.raises(RunError, match="another cohort"):
        combine([runs[0], other], cohort, out)
    both = combine(runs, cohort, tmp_path / "both")
    with pytest.raises(RunError, match="holds no network"):
        combine([runs[0], both], cohort, out)
    assert not out.exists()


def test_only_a_run_that_is_not_needed_is_replaced(
    runs: list[Path], cohort: Cohort, split: Split, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")
    kept = Path(shutil.copytree(runs[0], tmp_path / "out" / "runs" / "a"))
    for out in (tmp_path / "file", tmp_path / "out", tmp_path / "out" / "runs"):
        with pytest.raises(RunError, match="exists and is not a run"):
            combine([kept, runs[1]], cohort, out)
        with pytest.raises(RunError, match="exists and is not a run"):
            train_small(small_recipe(), cohort, split, out)
    both = combine(runs, cohort, tmp_path / "both")
    for sources, out in (([kept, runs[1]], kept), (sorted((both / "members").iterdir()), both)):
        with pytest.raises(RunError, match="which is needed, and would be replaced"):
            combine(sources, cohort, out)
    assert (tmp_path / "file").read_text() == "precious"
    assert all((folder / "model.keras").is_file() for folder in (kept, both / "members" / f"0-{runs[0].name}"))


def test_the_command(runs: list[Path], cohort: Cohort, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "both"
    arguments = ["ensemble", *map(str, runs), "--out", str(out), "--d4", "--threshold", "sensitivity:0.9"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "0.9" in json.loads((out / "calibration.json").read_text())["threshold_rule"]
    explain = ["explain", str(out), str(cohort.folder), "--limit", "1", "--out", str(tmp_path / "e")]
    result = CliRunner().invoke(app, explain)
    assert result.exit_code == RunError.exit_code
    assert "is an ensemble" in result.output
    assert not (tmp_path / "e").exists()
    result = CliRunner().invoke(app, [*arguments[:-1], "half"])
    assert result.exit_code == RunError.exit_code
    assert "balanced_accuracy" in result.output
