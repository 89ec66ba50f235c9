"""Folds as one result: never ranked together, calls counted together, patients drawn over all."""

from __future__ import annotations

import json
from pathlib import Path

import fake_runs as fake
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from ductal.errors import RunError
from ductal.evaluation.compare import best_on_validation, leaderboard, load_runs
from ductal.evaluation.folds import PooledRun, each_patient, evaluate_folds, pool_folds
from ductal.evaluation.metrics import PATIENT_METRICS, evaluate_predictions
from ductal.evaluation.report import verdict, warnings_of, write_comparison_report
from ductal.evaluation.runs import load_run


def table(folds: int = 3, patients: int = 4, seed: int = 0) -> pd.DataFrame:
    """Folds whose networks agree in their ranking but not in their scale."""
    rng = np.random.default_rng(seed)
    n = folds * patients * 30
    fold = np.repeat(np.arange(folds), patients * 30)
    label = (rng.random(n) < 0.3).astype("int8")
    raw = 1 / (1 + np.exp(-(2 * label - 1 + rng.normal(size=n))))
    return pd.DataFrame(
        {
            "patch_id": [f"p{i}" for i in range(n)],
            "patient": [f"q{i // 30:02d}" for i in range(n)],
            "label": label,
            "prob": (raw + fold) / folds,
            "threshold": (0.5 + fold) / folds,
            "fold": fold,
        }
    )


def kfold(out: Path, fold: int, name: str = "vgg16-full", *, of: int = 3, **more) -> Path:
    counts = {"test": {"patients": 6, "patches": 360, "positives": 100}}
    split = {"id": f"id{fold}", "name": "kfold", "seed": 42, "fold": fold, "by": "patient", "counts": counts}
    split |= {"trained_on": 100, "notes": []}
    patients = fake.MANY[fold * 6 : fold * 6 + 6]
    return fake.make_run(out / f"{name}-{fold}-of-{of}", name, patients=patients, split=split, **more)


def test_one_fold_is_the_plain_evaluation() -> None:
    one = table(folds=1, patients=12)
    pooled, plain = evaluate_folds(one), evaluate_predictions(one, 0.5)
    for point in ("at_0.5", "at_threshold", "per_patient"):
        assert pooled[point] == pytest.approx(plain[point], nan_ok=True)
    assert pooled["intervals"] == plain["intervals"]


def test_calls_are_counted_together_and_scores_ranked_apart() -> None:
    all_folds = table()
    found = evaluate_folds(all_folds)["at_threshold"]
    y, p = all_folds["label"], all_folds["prob"]
    called = p >= all_folds["threshold"]
    assert found["f1"] == pytest.approx(sk.f1_score(y, called), abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, called), abs=1e-12)
    assert found["tp"] == int((called & (y == 1)).sum())
    auc, ap, pairs, positives = [], [], [], []
    for _, fold in all_folds.groupby("fold"):
        auc.append(sk.roc_auc_score(fold["label"], fold["prob"]))
        ap.append(sk.average_precision_score(fold["label"], fold["prob"]))
        positives.append(fold["label"].sum())
        pairs.append(positives[-1] * (len(fold) - positives[-1]))
    assert found["roc_auc"] == pytest.approx(np.average(auc, weights=pairs), abs=1e-12)
    assert found["average_precision"] == pytest.approx(np.average(ap, weights=positives), abs=1e-12)
    # Ranked together, the three scales would ruin what every network does well.
    assert sk.roc_auc_score(y, p) < found["roc_auc"] - 0.1


def test_intervals_are_over_the_patients_of_all_folds() -> None:
    block = evaluate_folds(table())
    assert block["intervals"]["patients"] == 12
    for metric in PATIENT_METRICS:
        low, high = block["intervals"]["at_threshold"][metric]
        assert low < block["at_threshold"][metric] < high
    assert (block["threshold"], len(block["thresholds"])) == (None, 3)


def test_each_patient_is_judged_at_their_own_folds_threshold() -> None:
    each = each_patient(table()).set_index("patient")
    assert len(each) == 12
    assert each["balanced_accuracy"].min() > 0.5
    assert each.index.is_monotonic_increasing


def test_a_patient_in_two_folds_is_refused() -> None:
    twice = table()
    twice.loc[twice["patient"] == "q11", "patient"] = "q00"
    with pytest.raises(RunError, match="same patient"):
        evaluate_folds(twice)


def test_unknown_patients_are_pooled_without_intervals() -> None:
    block = evaluate_folds(table().assign(patient=""))
    assert block["at_threshold"]["roc_auc"] == pytest.approx(evaluate_folds(table())["at_threshold"]["roc_auc"])
    assert block["intervals"]["at_threshold"] == {}
    assert block["per_patient"]["patients"] == 0


def test_folds_become_one_row_and_their_models_are_compared(tmp_path: Path) -> None:
    folders = [kfold(tmp_path, fold) for fold in (2, 0, 1)]
    folders += [kfold(tmp_path, fold, "mean-colour", skill=0.8, control=True) for fold in range(3)]
    rows = leaderboard(folders)
    assert rows["name"].tolist() == ["vgg16-full", "mean-colour"]
    assert rows["title"][0] == "Vgg16 Full, fine-tuned (3 folds pooled)"
    assert rows["patients"].tolist() == [18, 18]
    assert rows["to_best"].tolist() == ["best", "lower"]
    assert rows["roc_auc_low"].notna().all()
    run = load_runs(folders)[0]
    assert isinstance(run, PooledRun)
    assert [fold.run["split"]["fold"] for fold in run.folds] == [0, 1, 2]
    assert run.run["split"]["counts"]["test"]["patches"] == 3 * 360
    html = write_comparison_report(tmp_path / "out", folders, "Folds").read_text()
    assert "Folds pooled:" in html
    assert "folds 0, 1, 2 pooled" in html
    assert "Only 18 of 162 patients of the cohort are in the pooled folds." in html
    assert "each fold" in html
    assert not (tmp_path / "out" / "figures" / "roc_pr.png").exists()


def test_the_best_of_pooled_folds_is_chosen_by_validation_scores(tmp_path: Path) -> None:
    """`luck` is the better one on test patients, and was not on those who may choose."""
    folders = [kfold(tmp_path, fold, name) for fold in range(3) for name in ("merit", "luck")]
    for part, strong, weak in (("val", "merit", "luck"), ("test", "luck", "merit")):
        for fold in range(3):
            for name, skill in ((strong, 3.0), (weak, 1.5)):
                _overwrite(tmp_path / f"{name}-{fold}-of-3", part, skill, fake.MANY[fold * 6 : fold * 6 + 6])
    rows = leaderboard(folders)
    assert rows["name"].tolist() == ["luck", "merit"]
    assert rows.loc[best_on_validation(rows), "name"] == "merit"
    assert rows["to_best"].tolist() == ["higher", "best"]
    assert verdict(rows).startswith("Chosen on validation patients out of 2 models: Merit")
    assert verdict(rows.assign(val_roc_auc=np.nan)).startswith("Best of 2 models: Luck")
    told = dict(warnings_of(load_runs(folders), rows))
    assert "Folds share their patients" in told
    assert "luck" in dict(warnings_of(load_runs(folders), rows.assign(val_roc_auc=np.nan)))[
        "Best of several by the figure that is shown"
    ]
    assert "Folds share their patients" not in dict(warnings_of(load_runs(folders[::2]), rows[1:]))


def _overwrite(folder: Path, part: str, skill: float, patients: tuple[str, ...]) -> None:
    """Other predictions for one part of a run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    table = fake.predictions(part, skill, patients)
    table.to_parquet(folder / "predictions" / f"{part}.parquet", index=False)
    metrics[part] = evaluate_predictions(table, metrics[part]["threshold"])
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_what_is_no_set_of_folds_stays_apart(tmp_path: Path) -> None:
    first = load_run(kfold(tmp_path, 0))
    other_recipe = load_run(kfold(tmp_path, 1, "vgg16-frozen"))
    other_seed = load_run(kfold(tmp_path, 1, seed=1))
    same_fold = load_run(kfold(tmp_path, 0, of=4))
    published = load_run(fake.make_run(tmp_path / "published"))
    runs = [first, other_recipe, other_seed, published]
    assert pool_folds(runs) == runs
    assert pool_folds([first, same_fold]) == [first, same_fold]
