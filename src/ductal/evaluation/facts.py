"""What a run's folder says of its data, network, training and calibration, in words for readers.

The model card, the checklists and the report say the same things, so they are worded once. Nothing is
assumed: what a folder does not hold is called "not recorded".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from ductal.evaluation.runs import PART_WORDS, RunRecord
from ductal.evaluation.tables import duration, show

UNKNOWN = "not recorded"
Pairs = list[tuple[str, str]]
_WORDS = PART_WORDS | {"train": "training"}


def cohort_words(run: RunRecord) -> str:
    """How many patches, of whom, from where, and how many are cancer."""
    cohort = run.run["cohort"]
    patients = f" of {cohort.get('n_patients', 0):,} patients" if cohort.get("has_patients", True) else ""
    patches, positive = cohort.get("n_patches", 0), cohort.get("n_positive", 0)
    share = f" ({positive / patches:.1%})" if patches else ""
    kind = cohort.get("source_kind", "source " + UNKNOWN)
    return f"{patches:,} patches{patients} from {cohort.get('name')} ({kind}); {positive:,} are cancer{share}"


def split_rows(run: RunRecord) -> list[list[str]]:
    """part, patients, patches, cancer patches and prevalence of each part of the split."""
    rows = []
    for part, counts in (run.run.get("split", {}).get("counts") or {}).items():
        patches, positives = counts.get("patches", 0), counts.get("positives", 0)
        prevalence = f"{positives / patches:.1%}" if patches else "n/a"
        rows.append([_WORDS.get(part, part), f"{counts.get('patients', 0):,}", f"{patches:,}", f"{positives:,}",
                     prevalence])  # fmt: skip
    return rows


def split_words(run: RunRecord) -> str:
    """How the patients were divided."""
    split = run.run.get("split", {})
    seed = "" if split.get("seed") is None else f", seed {split['seed']}"
    fold = "" if split.get("fold") is None else f", fold {split['fold']}"
    return f"split “{split.get('name', UNKNOWN)}”{seed}{fold}, by {split.get('by', UNKNOWN)}"


def audit_words(run: RunRecord) -> str:
    """The result of the leak audit in one sentence."""
    checks = (run.run.get("audit") or {}).get("checks", [])
    if not checks:
        return f"leak audit: {UNKNOWN}"
    found = [f"{check.get('name')}: {check.get('status')}" for check in checks]
    return f"leak audit of {len(checks)} checks: {'; '.join(found)}"


def left_out_words(run: RunRecord) -> str:
    """How many files were left out, and why."""
    found = run.run["cohort"].get("quarantined") or {}
    if not found:
        return "no file was left out"
    return "left out: " + ", ".join(f"{count:,} ({reason})" for reason, count in found.items())


def selection_words(run: RunRecord) -> str:
    """Which patients and patches the study declared to use."""
    chosen = {key: value for key, value in (run.run["cohort"].get("selection") or {}).items() if value is not None}
    limit, patients = chosen.get("limit_per_class"), chosen.get("patients")
    parts = []
    if patients is not None:
        parts.append(f"{patients} patients, drawn at random (seed {chosen.get('seed', UNKNOWN)})")
    if limit is not None:
        parts.append(f"training on at most {limit} patches per class of each patient; figures are on all patches")
    return "; ".join(parts) or "all patients and patches"


def scale_words(run: RunRecord) -> str:
    """The size of a patch, as far as it is known."""
    spacing, side = run.run["cohort"].get("spacing_um"), run.calibration.get("patch_size")
    pixels = f"{side} x {side} px" if side else "size " + UNKNOWN
    if not spacing:
        return f"{pixels} (um per pixel {UNKNOWN})"
    return f"{pixels} at {spacing:g} um per pixel"


def model_facts(run: RunRecord) -> Pairs:
    """What the network is; for an ensemble, what its networks are."""
    record, recipe = run.run, run.run.get("recipe") or {}
    members = recipe.get("members")
    if members:
        seeds = [one.get("seed", UNKNOWN) for one in record.get("members") or []] + [UNKNOWN] * len(members)
        networks = [(f"Network {number}", f"{_network_words(one)}, seed {seed}")
                    for number, (one, seed) in enumerate(zip(members, seeds, strict=False), 1)]  # fmt: skip
        networks.append(("Joined by", "the mean of their calibrated logits"))
    else:
        networks = [("Network", _network_words(recipe)), ("Head", _head_words(recipe.get("head")))]
    return [
        ("Recipe", run.name),
        *networks,
        ("Starting weights", str(record.get("weights", UNKNOWN))),
        ("Input", f"{scale_words(run)}, RGB, 8 bits; scaling and enlarging are part of the model"),
        ("Output", "probability of cancer for each patch, calibrated; cancer is called from the threshold on"),
        ("Averaged over flips and rotations (D4)", "yes" if run.calibration.get("d4") else "no"),
        ("Parameters", show("parameters", (record.get("parameters") or {}).get("total"))),
    ]


def training_facts(run: RunRecord) -> Pairs:
    """How it was trained, from settings to seconds."""
    record, recipe, history = run.run, run.run.get("recipe") or {}, run.history
    if recipe.get("members"):
        return [("Training", "none of its own: its networks were trained before"), *_circumstances(run)]
    stages = [(f"Stage {number}", _stage_words(stage)) for number, stage in enumerate(recipe.get("stages") or [], 1)]
    trained = UNKNOWN if history is None else f"{len(history)}"
    if history is not None and "best" in history:
        kept = history.loc[history["best"].astype(bool), "epoch"].astype(int).astype(str)
        trained += f"; kept: {', '.join(kept) or 'none'}"
    return [
        *stages,
        ("Epochs", trained),
        ("Stages given up", "; ".join(record.get("stages_given_up") or ["none"])),
        ("Loss", _loss_words(recipe)),
        ("Sampling", {
            "patches": "each patch once an epoch", "classes": "both classes equally often",
            "patients": "both classes equally often, and within a class each patient as far as their patches reach",
        }.get(str(recipe.get("sampling", "patches")), UNKNOWN)),
        ("Moving average of weights", _decay_words(recipe.get("ema"))),
        ("Augmentation, of training patches only", _augment_words(recipe)),
        ("Batch size", str(recipe.get("batch_size", UNKNOWN))),
        *_circumstances(run),
    ]  # fmt: skip


def calibration_facts(run: RunRecord) -> Pairs:
    """Calibration and threshold, and how both were chosen."""
    settings = run.calibration
    if not settings:
        return []
    fitted = settings.get("calibration") or {}
    fit = {"temperature": "temperature scaling", "platt": "Platt scaling"}.get(str(fitted.get("fit")), UNKNOWN)
    patches, patients = (fitted.get(key, UNKNOWN) for key in ("patches", "patients"))
    how = f"{fit} on {patches} patches of {patients} validation patients"
    if fitted.get("fitted") is False:
        how += f"; not fitted: {fitted.get('note') or 'reason ' + UNKNOWN}"
    earlier = settings.get("earlier_thresholds") or []
    facts = [
        ("Calibration", how),
        ("Temperature", f"{settings['temperature']:.3f} (above 1: the network was too sure)"),
        ("Bias", f"{settings.get('bias', 0.0):.3f}"),
        ("Threshold", show("", settings.get("threshold"))),
        ("Rule of the threshold", str(settings.get("threshold_rule", UNKNOWN))),
        ("Thresholds given up after training", "; ".join(
            f"{show('', one.get('threshold'))} ({one.get('threshold_rule')})" for one in earlier) or "none"),
    ]  # fmt: skip
    abstention = settings.get("abstention") or {}
    if abstention.get("low") is not None and abstention.get("high") is not None:
        facts.append((
            "To leave to a person",
            f"probabilities between {abstention['low']:.3f} and {abstention['high']:.3f}: without them at most "
            f"{abstention.get('max_error', 0):.0%} of the calls on validation patients were wrong",
        ))  # fmt: skip
    return facts


def _circumstances(run: RunRecord) -> Pairs:
    record = run.run
    seconds = (record.get("timings") or {}).get("train_seconds")
    versions = [f"{name} {number}" for name, number in (record.get("versions") or {}).items()]
    return [
        ("Seed", f"{record.get('seed', UNKNOWN)}{', deterministic' if record.get('deterministic') is True else ''}"),
        ("Device and precision", f"{record.get('device', UNKNOWN)}, {record.get('precision', UNKNOWN)}"),
        ("Training time", UNKNOWN if seconds is None else duration(float(seconds))),
        ("Software", ", ".join(versions) or UNKNOWN),
        ("Finished", str(record.get("finished", UNKNOWN))),
    ]


def _network_words(recipe: Mapping[str, Any]) -> str:
    size = f", run at {recipe['input_px']} px" if recipe.get("input_px") else ""
    if isinstance(encoder := recipe.get("encoder"), Mapping):
        return f"frozen ONNX encoder {PurePath(str(encoder.get('file', ''))).name}{size}"
    weights = recipe.get("weights")
    start = f", from {weights} weights" if weights else ""
    return f"{recipe.get('backbone', 'backbone ' + UNKNOWN)}{start}{size}"


def _head_words(head: Mapping[str, Any] | None) -> str:
    return f"{_settings_words(head)}; one sigmoid unit" if head else UNKNOWN


def _stage_words(stage: Mapping[str, Any]) -> str:
    layers = stage.get("unfreeze", UNKNOWN)
    trains = ", ".join(map(str, layers)) if isinstance(layers, list) else str(layers)
    watched = (stage.get("early_stopping") or {}).get("monitor", UNKNOWN)
    return (
        f"{stage.get('name', UNKNOWN)}: base layers that train: {trains}; at most {stage.get('epochs', UNKNOWN)} "
        f"epochs, {stage.get('optimizer', 'optimizer ' + UNKNOWN)}, learning rate "
        f"{stage.get('learning_rate', UNKNOWN)}; the epoch with the best {watched} is kept"
    )


def _loss_words(recipe: Mapping[str, Any]) -> str:
    gamma, neighbours = recipe.get("focal_gamma"), recipe.get("neighbour_smoothing")
    loss = f"focal loss, gamma {gamma}" if gamma else "binary cross-entropy"
    smoothing = f"label smoothing {recipe.get('label_smoothing', UNKNOWN)}"
    if neighbours:
        smoothing += f", {neighbours} by neighbours of the other class"
    return f"{loss}, {smoothing}, class weights {_yes_no(recipe.get('class_weights'))}"


def _augment_words(recipe: Mapping[str, Any]) -> str:
    mixed = [f"{key} {recipe[key]}" for key in ("mixup", "cutmix") if recipe.get(key)]
    return ", ".join([_settings_words(recipe.get("augment")), *mixed])


def _decay_words(decay: float | None) -> str:
    return f"decay {decay} a step; it is what was validated and saved" if decay else "none"


def _settings_words(settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return UNKNOWN
    return ", ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return _yes_no(value)
    if value is None or isinstance(value, Mapping):
        return f"({_settings_words(value)})" if value else "none"
    return (" ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _yes_no(value: Any) -> str:
    return UNKNOWN if value is None else "yes" if value else "no"
