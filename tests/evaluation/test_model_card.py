"""The model card: filled in from the run, honest about what is unknown, and safe against names from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_runs as fake
import pytest

from ductal.evaluation.limits import limits
from ductal.evaluation.model_card import front_matter, write_model_card
from ductal.evaluation.runs import load_run

CALIBRATION = {
    "temperature": 1.31, "bias": 0.0, "threshold": 0.41, "threshold_rule": "finds 0.95 of the IDC patches",
    "calibration": {"fit": "temperature", "fitted": True, "note": "", "patches": 2311, "patients": 29},
    "abstention": {"max_error": 0.05, "low": 0.2, "high": 0.7}, "patch_size": 50, "d4": False,
    "earlier_thresholds": [{"threshold": 0.5, "threshold_rule": "the first"}],
}  # fmt: skip


def card(folder: Path, calibration: dict[str, Any] | None = CALIBRATION, **changes: Any) -> str:
    fake.make_run(folder, **changes)
    if calibration is not None:
        (folder / "calibration.json").write_text(json.dumps(calibration))
    path = write_model_card(folder)
    assert path == folder / "MODEL_CARD.md"
    return path.read_text(encoding="utf-8")


def test_it_says_what_the_run_knows(tmp_path: Path) -> None:
    text = card(tmp_path / "run", patients=fake.MANY)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    low, high = metrics["intervals"]["at_threshold"]["roc_auc"]
    for words in (
        "# Model card: Vgg16 Full, fine-tuned",
        f"ROC AUC {metrics['at_threshold']['roc_auc']:.3f} ({low:.3f} to {high:.3f})",
        "on 20 test patients",
        "18,537 patches of 162 patients from IDC_regular_ps50_idx5 (zip); 5,240 are cancer (28.3%)",
        "left out: 57 (size), 3 (blank)",
        "at most 200 patches per class of each patient",
        "| training | 84 | 12,800 | 3,610 | 28.2% |",
        "split “published”, by patient",
        "| near duplicates | No patch of one part looks like one of another part. | not testable |",
        "| Network | VGG16, run at 50 px |",
        "| Parameters | 14,780,481 |",
        "all layers: base layers that train: block5",
        "| Epochs | 8; kept: 3, 8 |",
        "temperature scaling on 2311 patches of 29 validation patients",
        "1.310 (above 1: the network was too sure)",
        "finds 0.95 of the IDC patches",
        "0.500 (the first)",
        "ductal predict path/to/vgg16-full images/",
        "10.1117/12.2043872",
        "arXiv 1409.1556",
        "um per pixel not recorded",
        "Research use only.",
    ):
        assert words in text, words
    assert "Synthetic" not in text
    assert str(tmp_path) not in text


def test_its_head_is_yaml_that_the_hub_reads(tmp_path: Path) -> None:
    text = card(tmp_path / "run")
    _, head, _ = text.split("---\n", 2)
    front = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in head.strip().split("\n"))}
    assert front["pipeline_tag"] == "image-classification"
    assert front["license"] == "other"  # it is not ours to choose
    assert "roc_auc" in front["metrics"]
    (entry,) = front["model-index"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["at_threshold"]
    found = {one["type"]: one["value"] for one in entry["results"][0]["metrics"]}
    assert found["brier_score"] == round(metrics["brier"], 4)
    assert front == {key: json.loads(value) for key, value in front_matter(load_run(tmp_path / "run")).items()}


def test_what_is_not_there_is_called_not_recorded(tmp_path: Path) -> None:
    text = card(tmp_path / "run", None, recipe={}, versions={}, timings={}, parameters={}, audit=None, weights=None)
    for words in ("| Head | not recorded |", "| Software | not recorded |", "Calibration: not recorded.",
                  "| Training time | not recorded |", "| Parameters | n/a |"):  # fmt: skip
        assert words in text, words


def test_before_the_evaluation_it_says_so(tmp_path: Path) -> None:
    fake.make_run(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    text = write_model_card(tmp_path / "run").read_text(encoding="utf-8")
    assert "Not evaluated yet" in text
    assert "model-index" not in text


def test_an_ensemble_names_its_networks(tmp_path: Path) -> None:
    networks = [{"backbone": net, "weights": "random", "input_px": 96} for net in ("EfficientNetB0", "VGG16")]
    recipe = {"name": "both", "title": "Ensemble of two", "members": networks}
    members = [{"name": "a", "seed": seed} for seed in (1, 2)]
    text = card(tmp_path / "run", CALIBRATION | {"d4": True}, recipe=recipe, members=members, ensemble=True)
    assert "| Network 1 | EfficientNetB0, from random weights, run at 96 px, seed 1 |" in text
    assert "| Network 2 | VGG16" in text
    assert "| Averaged over flips and rotations (D4) | yes |" in text
    assert "arXiv 1905.11946" in text
    assert "its networks were trained before" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cohort": fake.cohort(synthetic=True)}, "drawn by a program"),
        ({"cohort": fake.cohort(has_patients=False)}, "does not say which patch is whose"),
        ({"parts": ("val",)}, "validation patients only"),
        ({"test_opened": 4}, "opened 4 times"),
        ({"alarms": ["it collapsed"]}, "Alarm of this run: it collapsed"),
        ({}, "6 test patients, fewer than the 10"),
    ],
)
def test_limits_come_from_the_run(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    found = " ".join(limits(load_run(fake.make_run(tmp_path / "run", **changes))))
    assert words in found
    assert ("Age, ancestry" in found) != ("drawn by a program" in found)
    known = fake.make_run(tmp_path / "known", cohort=fake.cohort(spacing_um=4.0))
    assert "scale is not recorded" not in " ".join(limits(load_run(known)))


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    hostile = "<script>x</script> | [a](b)\n# c"
    cohort = fake.cohort(name=hostile, notes=[hostile], quarantined={hostile: 1})
    recipe = {"title": hostile, hostile: 1}
    text = card(tmp_path / "run", name=hostile, cohort=cohort, alarms=[hostile], recipe=recipe)
    body = text.split("---\n", 2)[2]
    assert "<script>" not in text
    assert "\n# c" not in body
    assert "[a](b)" not in body
    assert "path/to/RUN" in body
