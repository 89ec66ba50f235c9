"""What each training extra is worth on real patches: one configuration trained with each, and what that costs.

    ductal prepare ARCHIVE --limit-per-class 25 --out COHORT
    python benchmarks/extras.py COHORT --split-file SPLIT.json --out FOLDER [--seeds 1] [--write docs/training.md]

The base is a backbone with ImageNet weights, all layers trained at 50 px for a few epochs, with flips, turns, small
rotations, zoom and shift and nothing else; every row changes one thing in it. Each is trained on the split's training
patients in a process of its own and judged on the validation patients, which also choose its epoch; test patients are
taken out of the split before anything is read. "Difference" is the row's validation ROC AUC less that of the base
with the same seed, the mean over seeds, with a 95 % interval over patients and the p value of the permutation test
(`ductal.evaluation`), corrected by Holm for the number of extras: they say what other patients would change. What
another seed would change is seen in the rows of the base with other seeds. "Time" is seconds an
epoch as a multiple of the base's, of the quickest epoch of all seeds, since other work on the machine only adds; the
first epoch, which builds the graph, is left out.

Trainings that are in FOLDER already are not repeated, so that an interrupted call goes on, and further seeds add to
the first. Prints a Markdown table and one JSON object; --write puts the table between the marks in a file.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from backbones import write_table

from ductal.data.audit import AuditReport, audit_split, refuse_leaks
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.errors import RunError
from ductal.evaluation.bootstrap import Resampling, patients_of
from ductal.evaluation.differences import PERMUTATIONS, Patches, Scored, exchanged, holm, p_value, resampled
from ductal.evaluation.runs import RunRecord, load_run
from ductal.machine import cpu
from ductal.training.isolated import train_isolated
from ductal.training.recipe import Recipe
from ductal.tune.space import Space

MARKS = ("<!-- table of benchmarks/extras.py -->", "<!-- end of the table -->")
HEADER = (
    "| extra | setting | validation ROC AUC | difference to the base | p | time |\n"
    "|---|---|---:|---|---:|---:|"
)  # fmt: skip
BASE = "base"
OTHER_SEEDS = {"base, another seed": 1000, "base, a third seed": 2000}  # added to the seed of the others
RANDAUGMENT = {"operations": 2, "strength": 0.3}
EXTRAS: dict[str, dict[str, Any]] = {
    BASE: {},
    **{name: {} for name in OTHER_SEEDS},
    "stain jitter": {"augment.stain": 0.1},
    "RandAugment": {"augment.randaugment": RANDAUGMENT},
    "MixUp": {"mixup": 0.2},
    "CutMix": {"cutmix": 1.0},
    "label smoothing": {"label_smoothing": 0.1},
    "label smoothing by neighbours": {"neighbour_smoothing": 0.3},
    "focal loss": {"focal_gamma": 2.0},
    "average of weights": {"ema": 0.99},
    "warm-up, cosine": {"stages.0.warmup_steps": 40, "stages.0.schedule": "cosine"},
    "sampling by class": {"sampling": "classes"},
    "sampling by class and patient": {"sampling": "patients"},
    "64 px": {"input_px": 64},
    "96 px": {"input_px": 96},
    "128 px": {"input_px": 128},
}


@dataclass(frozen=True)
class Bench:
    """Where and on what all rows are trained."""

    cohort: Cohort
    split: Split
    audit: AuditReport
    out: Path


def base_recipe(backbone: str, weights: str, epochs: int, precision: str) -> Recipe:
    """The configuration that all rows change."""
    stage = {
        "name": "all layers", "unfreeze": "all", "epochs": epochs, "learning_rate": 2e-4,
        "early_stopping": {"patience": epochs}, "reduce_lr": {"patience": 1},
    }  # fmt: skip
    return Recipe.model_validate({
        "name": "extras", "title": "Base", "backbone": backbone, "weights": weights, "input_px": 50, "batch_size": 32,
        "precision": precision, "head": {"dropout": 0.2}, "stages": [stage],
        "augment": {"rotation_degrees": 15.0, "zoom": 0.1, "shift": 0.06},
    })  # fmt: skip


def open_bench(folder: Path, split_file: Path, out: Path) -> Bench:
    """The cohort, and the split without its test patients: nothing here can open them."""
    cohort, split = Cohort.open(folder), Split.load(split_file)
    split = split.model_copy(update={"parts": split.parts | {"test": []}})
    audit = audit_split(cohort, split)
    refuse_leaks(audit)
    return Bench(cohort, split, audit, out)


def trained(bench: Bench, recipe: Recipe, name: str, seed: int) -> RunRecord:
    """The run of a row, trained unless it is there with just these settings, patches and patients."""
    folder = bench.out / f"seed{seed}" / name.replace(", ", "-").replace(" ", "-")
    try:
        run = load_run(folder, evaluated=False)
        same = [run.run["recipe"], run.run["cohort"]["fingerprint"], run.run["cohort"]["selection"]]
        info = bench.cohort.info
        expected = [recipe.model_dump(mode="json"), info.fingerprint, info.selection]
        if [*same, run.run["split"]["id"]] == [*expected, bench.split.identity]:
            return run
    except RunError:  # not trained yet
        pass
    train_isolated(
        recipe, bench.cohort.folder, bench.split, folder,
        audit=bench.audit, seed=seed, profile="full", weights_file=None, final=False,
    )  # fmt: skip
    (folder / "model.keras").unlink()
    return load_run(folder, evaluated=False)


def measure(bench: Bench, base: Recipe, rows: Sequence[str], seed: int) -> dict[str, RunRecord]:
    """All rows with one seed. The base comes first; where it chose a precision, the others take the same."""
    space, runs = Space({}, "benchmarks/extras.py"), {}
    for name in rows:
        recipe = space.apply(base, EXTRAS[name] | {"title": name})
        runs[name] = trained(bench, recipe, name, seed + OTHER_SEEDS.get(name, 0))
        if name == BASE:
            base = base.model_copy(update={"precision": runs[name].run["precision"]})
    return runs


def predictions(run: RunRecord) -> pd.DataFrame:
    """What a run said of the validation patches, in the order of their ids."""
    return pd.read_parquet(run.folder / "predictions" / "val.parquet").sort_values("patch_id", ignore_index=True)


def scored(tables: Sequence[pd.DataFrame]) -> list[Scored]:
    """The probabilities of several trainings on the same patches."""
    found = []
    for table in tables:
        assert table["patch_id"].equals(tables[0]["patch_id"])
        scores = table["prob"].to_numpy(np.float64)
        found.append(Scored(scores, scores >= 0.5))
    return found


def aucs(patches: Patches, models: Sequence[Scored], draws: Resampling) -> np.ndarray:
    """The mean ROC AUC of several trainings on the same patches, for all weights of `draws`."""
    return cast("np.ndarray", np.mean([resampled(patches, model, draws)["roc_auc"] for model in models], axis=0))


def chance(patches: Patches, firsts: Sequence[Scored], seconds: Sequence[Scored], draws: Resampling) -> np.ndarray:
    """Mean differences where patients' predictions are exchanged, the same patients' with every seed."""
    pairs = zip(firsts, seconds, strict=True)
    found = [exchanged(patches, *pair, PERMUTATIONS, draws.seed)["roc_auc"] for pair in pairs]
    return cast("np.ndarray", np.mean(found, axis=0))


def patches_of(table: pd.DataFrame) -> Patches:
    """The patches of a table of predictions."""
    names, group = np.unique(table["patient"].to_numpy(dtype=str), return_inverse=True)
    return Patches(table["label"].to_numpy().astype(bool), group, len(names))


def compare(runs: list[dict[str, RunRecord]]) -> list[dict[str, Any]]:
    """For every row its ROC AUC, the difference to the base and what an epoch costs; over all seeds."""
    first = predictions(runs[0][BASE])
    patches = patches_of(first)
    models = {name: scored([first, *(predictions(run[name]) for run in runs)])[1:] for name in runs[0]}
    draws = Resampling(patches.patients)
    rests_on = patients_of(patches.truth, patches.group, patches.patients)["roc_auc"]
    base = aucs(patches, models[BASE], draws)
    found = []
    for name, of_seeds in models.items():
        values = aucs(patches, of_seeds, draws)
        cost, base_cost = (min(seconds(run[one]) for run in runs) for one in (name, BASE))
        row: dict[str, Any] = {
            "extra": name, "roc_auc": float(values[0]), "time": cost / base_cost,
            "of_each_seed": [float(aucs(patches, [model], draws)[0]) for model in of_seeds],
            "seconds_an_epoch": [seconds(run[name]) for run in runs],
        }  # fmt: skip
        if name != BASE:
            row["difference"] = float(values[0] - base[0])
            row["interval"] = draws.interval(values - base, rests_on=rests_on)
        if name != BASE and name not in OTHER_SEEDS:
            row["p"] = p_value(row["difference"], chance(patches, of_seeds, models[BASE], draws))
        found.append(row)
    tested = [row for row in found if "p" in row]
    for row, p in zip(tested, holm([row["p"] for row in tested]).tolist(), strict=True):
        row["p"] = p
    return found


def seconds(run: RunRecord) -> float:
    """Of the quickest epoch, without the first one."""
    assert run.history is not None
    return float(run.history["seconds"].iloc[1:].min())


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    changed = {key.removeprefix("stages.0."): _short(value) for key, value in EXTRAS[row["extra"]].items()}
    setting = ", ".join(f"`{key} = {value}`" for key, value in changed.items())
    difference = ""
    if "difference" in row:
        difference = f"{row['difference']:+.4f}"
        if row["interval"]:
            difference += f" ({row['interval'][0]:+.4f} to {row['interval'][1]:+.4f})"
    p = f"{row['p']:.3f}" if "p" in row else ""
    return f"| {row['extra']} | {setting} | {row['roc_auc']:.4f} | {difference} | {p} | {row['time']:.2f} |"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_short(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def told(bench: Bench, run: RunRecord, seeds: Sequence[int]) -> str:
    """On what the table rests."""
    recipe, stage = run.run["recipe"], run.run["recipe"]["stages"][0]
    counts = run.run["split"]["counts"]
    selection = bench.cohort.info.selection["limit_per_class"]
    limit = f", at most {selection} a class of each patient" if selection else ""
    origin = "synthetic" if bench.cohort.info.synthetic else "real"
    return (
        f"{recipe['backbone']}, {recipe['weights']} weights, {recipe['input_px']} px, {stage['epochs']} epochs, "
        f"{run.run['precision']}, batches of {recipe['batch_size']}; {run.run['split']['trained_on']:,} {origin} "
        f"training patches of {counts['train']['patients']} patients{limit}; judged on {counts['val']['patches']:,} "
        f"patches of {counts['val']['patients']} patients, {counts['val']['positives']:,} of them IDC. "
        f"Seeds: {', '.join(map(str, seeds))}. Measured on {cpu()}; load of the machine: {os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path, help="a prepared cohort")
    parser.add_argument("--split-file", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--rows", nargs="+", choices=EXTRAS, default=list(EXTRAS), metavar="ROW")
    parser.add_argument("--backbone", default="DenseNet121")
    parser.add_argument("--weights", choices=["imagenet", "random"], default="imagenet")
    parser.add_argument("--precision", choices=["auto", "float32", "mixed_bfloat16"], default="auto")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs must be at least 2: the first one is not timed")
    bench = open_bench(options.cohort, options.split_file, options.out)
    base = base_recipe(options.backbone, options.weights, options.epochs, options.precision)
    rows = list(dict.fromkeys([BASE, *options.rows]))
    runs: list[dict[str, RunRecord]] = []
    for seed in options.seeds:
        runs.append(measure(bench, base, rows, seed))
    text = told(bench, runs[0][BASE], options.seeds)
    found = compare(runs)
    lines = [*HEADER.splitlines(), *map(line, found)]
    print("\n".join([*lines, text]))
    if options.write:
        write_table(options.write, [text, "", *lines], MARKS)
    print(json.dumps({"told": text, "rows": found}))


if __name__ == "__main__":
    main()
