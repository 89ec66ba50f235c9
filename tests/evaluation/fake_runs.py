"""Makes plausible run folders from random numbers, so that comparison and reports need no training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ductal.evaluation import figures, figures_training
from ductal.evaluation.metrics import best_threshold, evaluate_predictions

# As many as the intervals need, and enough for a permutation test that can find something.
MANY = tuple(str(number) for number in range(9300, 9320))


def make_run(
    folder: Path,
    name: str = "vgg16-full",
    *,
    skill: float = 2.5,
    control: bool = False,
    parts: tuple[str, ...] = ("val", "test"),
    patients: tuple[str, ...] = ("8863", "8914", "9022", "9175", "9250", "9257"),
    draw: bool = False,
    noise: int = 0,
    **changes: Any,
) -> Path:
    """Write a run folder; `skill` sets how far apart the classes' logits are, `noise` draws the model's own
    errors (0: none of its own), `changes` go into run.json."""
    (folder / "predictions").mkdir(parents=True)
    tables = {part: predictions(part, skill, patients, noise) for part in parts}
    threshold = best_threshold(tables["val"]["label"], tables["val"]["prob"])
    metrics = {part: evaluate_predictions(table, threshold) for part, table in tables.items()}
    for part, table in tables.items():
        table.to_parquet(folder / "predictions" / f"{part}.parquet", index=False)
    (folder / "metrics.json").write_text(json.dumps(metrics | {"d4": False}), encoding="utf-8")
    record = _record(name, control, parts) | changes
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    if not control:
        history(("head", 3), ("all layers", 5)).to_csv(folder / "history.csv", index=False)
    if draw:
        _draw(folder, tables, threshold)
    return folder


def predictions(part: str, skill: float, patients: tuple[str, ...], noise: int = 0) -> pd.DataFrame:
    """60 patches a patient; the patches and labels depend on `part` only."""
    rng = np.random.default_rng(["val", "test"].index(part))
    n = 60 * len(patients)
    label = (rng.random(n) < 0.284).astype("int8")
    logit = skill * (label - 0.45) + rng.normal(size=n)
    if noise:
        logit += np.random.default_rng(noise).normal(0, 0.5, n)
    patient = np.repeat(patients, 60)
    return pd.DataFrame(
        {
            "patch_id": [
                f"{who}_idx5_x{50 * (i % 60) + 1}_y{1101 if part == 'val' else 2101}_class{c}"
                for i, (who, c) in enumerate(zip(patient, label, strict=True))
            ],
            "patient": patient,
            "label": label,
            "prob": (1 / (1 + np.exp(-logit))).astype("float32"),
        }
    ).sample(frac=1, random_state=int(10 * skill))


def history(*stages: tuple[str, int], full: bool = True) -> pd.DataFrame:
    """A learning curve over `stages` of (name, epochs)."""
    names = [name for name, epochs in stages for _ in range(epochs)]
    epoch = np.arange(1, len(names) + 1)
    gained = 1 - np.exp(-epoch / 5)
    table = pd.DataFrame({"epoch": epoch, "stage": names, "loss": 0.7 - 0.5 * gained})
    table = table.assign(accuracy=0.6 + 0.35 * gained, val_loss=0.7 - 0.4 * gained)
    table = table.assign(val_accuracy=0.6 + 0.27 * gained)
    if full:
        table = table.assign(balanced_accuracy=0.5 + 0.42 * gained, auc=0.6 + 0.38 * gained)
        table = table.assign(val_balanced_accuracy=0.5 + 0.38 * gained, val_auc=0.6 + 0.35 * gained)
    last = table.groupby("stage")["epoch"].transform("max")
    return table.assign(best=table["epoch"] == last)


def cohort(**changes: Any) -> dict[str, Any]:
    """The cohort block of run.json."""
    return {
        "name": "IDC_regular_ps50_idx5",
        "source_kind": "zip",
        "synthetic": False,
        "has_patients": True,
        "fingerprint": "3f2a" * 10,
        "n_patches": 18537,
        "n_patients": 162,
        "n_positive": 5240,
        "quarantined": {"size": 57, "blank": 3},
        "selection": {"patients": None, "limit_per_class": 200, "seed": 42},
        "notes": ["Kaggle nested copy: 277,524 second copies ignored"],
        "spacing_um": None,
        "ductal_version": "0.1.0",
        "created": "2026-01-02T03:04:05+00:00",
    } | changes


def _record(name: str, control: bool, parts: tuple[str, ...]) -> dict[str, Any]:
    counts = {
        "train": {"patients": 84, "patches": 12800, "positives": 3610},
        "val": {"patients": 29, "patches": 2311, "positives": 640},
        "test": {"patients": 49, "patches": 3426, "positives": 990},
    }
    if "test" not in parts:
        counts["test"] = {"patients": 0, "patches": 0, "positives": 0}
    checks = [
        ("patient ids", "No patient is in two parts.", "passed", []),
        ("exact copies", "No two parts share a patch with the same pixels.", "passed", []),
        ("near duplicates", "No patch of one part looks like one of another part.", "not testable", []),
    ]
    title = f"the control {name}" if control else f"{name.replace('-', ' ').title()}, fine-tuned"
    return {
        "name": name,
        "control": control,
        "recipe": {
            "name": name,
            "title": title,
            "backbone": "VGG16",
            "input_px": 50,
            "quick_input_px": None,
            "class_weights": False,
            "stages": [{"name": "head", "unfreeze": "none"}, {"name": "all layers", "unfreeze": ["block5"]}],
        },
        "cohort": cohort(),
        "split": {
            "id": "published-1",
            "name": "published",
            "seed": None,
            "fold": None,
            "by": "patient",
            "counts": counts,
            "trained_on": 12800,
            "notes": [],
        },
        "audit": {
            "checks": [
                {"name": a, "what": b, "status": c, "pairs": len(d), "examples": d} for a, b, c, d in checks
            ],
            "notes": ["Blocks of neighbouring ids may be slides of one person."],
        },
        "seed": 42,
        "versions": {"python": "3.11.9", "ductal": "0.1.0", "keras": "3.12.0"},
        "device": "CPU (2 cores)",
        "precision": "float32",
        "timings": {"train_seconds": 754.2, "evaluate_seconds": 31.5},
        "test_opened": int("test" in parts),
        "evaluated_on": list(parts),
        "alarms": [],
        "parameters": {"total": 14_780_481, "trainable_last_stage": 7_145_985},
        "finished": "2026-01-02T05:04:05+00:00",
    }


def _draw(folder: Path, tables: dict[str, pd.DataFrame], threshold: float) -> None:
    out = folder / "figures"
    figures_training.curves(history(("head", 3), ("all layers", 5)), out / "curves.png")
    for part, table in tables.items():
        figures.confusion(table["label"], table["prob"], threshold, out / f"confusion_{part}.png")
    figures.roc_pr([(part, t["label"], t["prob"]) for part, t in tables.items()], out / "roc_pr.png")
    table = tables["val"]
    rng = np.random.default_rng(0)
    pixels = rng.integers(120, 230, (len(table), 50, 50, 3), dtype=np.uint8)
    ids = table["patch_id"].tolist()
    figures.sample_patches(pixels, table["label"], table["prob"], out / "samples.png", patch_ids=ids)
