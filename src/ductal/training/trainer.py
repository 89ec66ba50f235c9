"""Train one recipe on one cohort and split, stage by stage, into a run folder that is whole or absent."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ductal.data.audit import AuditReport, audit_split, refuse_leaks
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.errors import DataError, RecipeError
from ductal.files import replace_folder, scratch_folder
from ductal.record import check_run_target
from ductal.tracking.options import Tracking
from ductal.tracking.trackers import Trackers, open_trackers, params_of
from ductal.training.callbacks import is_collapsed
from ductal.training.checkpoint import Checkpoint, Checkpoints, checkpoint_folder, checkpoint_key
from ductal.training.deterministic import determinism, threads
from ductal.training.devices import mirrored, scope_of
from ductal.training.fast_layers import make_fast, make_plain
from ductal.training.feature_store import StageFeatures
from ductal.training.network import Normalisation, build_network, check_stages, to_float32
from ductal.training.precision import Choice, choose_precision
from ductal.training.progress import TrainingProgress
from ductal.training.recipe import Recipe
from ductal.training.resume import epochs_left
from ductal.training.run_record import device_of, run_record, versions, write_run
from ductal.training.stages import Job, find_features, train_stage
from ductal.training.targets import training_labels
from ductal.training.weights import encoder_origin


def train(
    recipe: Recipe,
    cohort: Cohort,
    split: Split,
    out: str | Path,
    *,
    seed: int = 42,
    progress: TrainingProgress,
    weights_file: Path | None = None,
    audit: AuditReport | None = None,
    profile: str = "full",
    features_folder: Path | None = None,
    later: Sequence[Recipe] = (),
    fresh: bool = False,
    tracking: Tracking | None = None,
    gpus: int | None = None,
    deterministic: bool = False,
) -> Path:
    """Train `recipe` and write the run folder `out`; a training that was interrupted is continued.

    After each epoch a checkpoint goes to the hidden folder `checkpoint_folder(out)`, which is deleted when the run is
    whole. The next call with the same settings, data and versions goes on from it and comes to the same run.

    Only training patients are learned from; only validation patients stop, choose epochs and set the
    threshold; test patients are not read here.

    Args:
        recipe: the settings, already adapted to the profile.
        cohort: the patches.
        split: which patients train and validate. It is audited unless `audit` is given.
        out: the run folder; an earlier run there is replaced.
        seed: of weights, order and augmentation.
        progress: shows epochs and warnings.
        weights_file: ImageNet weights to use instead of those the resolver finds.
        audit: the audit of exactly this split, if it was made already.
        profile: recorded with the run.
        features_folder: keeps the activations of frozen layers for other recipes too, and the caller deletes
            it; None keeps them for this training alone.
        later: recipes that will use `features_folder` after this one; what they need of the same frozen layers
            is computed in the same pass.
        fresh: begin anew, and delete the checkpoints.
        tracking: who else is told of it; a tracker that fails is a warning.
        gpus: graphics processors that share each batch; None is one device. See `ductal.training.devices`.
        deterministic: see `ductal.training.deterministic`; with it, TensorFlow stays so in this process.

    Returns:
        `out`.

    Raises:
        LeakError: the split leaks. DataError: a part lacks a class. WeightsError: no ImageNet weights, no encoder.
        RecipeError: `gpus` does not fit; a stage names layers that the backbone does not have; a setting has no
            effect on these patches; or `deterministic`, and something in it cannot be so on this device.
        StorageError: the disk refused, or (`BusyError`) another process trains into `out`. A checkpoint that could
            not be written is a warning. RunError: `out` holds something else than a run.
    """
    out = Path(out)
    check_run_target(out, [cohort.folder])
    audit = audit or audit_split(cohort, split)
    refuse_leaks(audit)
    rows = {part: split.rows(cohort, part) for part in ("train", "val")}
    _check_classes(cohort, rows)
    _check_effects(recipe, cohort, rows["train"])
    strategy = mirrored(gpus, recipe)
    key = _key(recipe, cohort, split, seed, weights_file, strategy, deterministic)
    with (
        scratch_folder(out) as folder,
        Checkpoints(checkpoint_folder(out), key, progress.warn) as checkpoints,
        open_trackers(tracking or Tracking(), out.name, checkpoints.folder, key, progress.warn) as trackers,
        determinism(seed, wanted=deterministic),
    ):
        if fresh:
            checkpoints.remove()
        saved = checkpoints.newest()
        job = _begin(
            recipe, cohort, rows, seed, weights_file, progress, checkpoints, trackers, strategy, saved, deterministic
        )
        told = run_record(job, recipe, cohort, split, audit, profile)
        trackers.begin(recipe.name, params_of(told), resumed=saved is not None)
        alike = [other for other in later if other.precision == recipe.precision]
        alike = [other.model_copy(update={"precision": job.choice.precision}) for other in alike]
        began = time.perf_counter()
        features_folder = features_folder or checkpoints.folder / "features"
        with closing(_written_only(job, saved) or find_features(job, features_folder, alike)) as features:
            frozen_seconds = time.perf_counter() - began
            _train_stages(job, features, saved)
        model = _finished(job)
        record = run_record(job, recipe, cohort, split, audit, profile) | {
            "timings": {
                "train_seconds": time.perf_counter() - job.started,
                "frozen_layers_seconds": frozen_seconds,
            },
            "feature_cache": features.note,
        }
        if tracked := trackers.record():
            record["tracking"] = tracked
        write_run(folder, model, job, split, record)
        replace_folder(folder, out)
        checkpoints.remove()
    return out


def _key(
    recipe: Recipe,
    cohort: Cohort,
    split: Split,
    seed: int,
    weights_file: Path | None,
    strategy: Any | None,
    deterministic: bool,
) -> str:
    """What a checkpoint must agree with to be gone on from."""
    weights = encoder_origin(recipe) if recipe.encoder is not None else None
    if weights_file is not None and weights_file.is_file() and recipe.weights == "imagenet":
        with weights_file.open("rb") as handle:
            weights = hashlib.file_digest(handle, "sha256").hexdigest()
    return checkpoint_key(
        recipe=recipe.model_dump(mode="json"), cohort=cohort.info.fingerprint, selection=cohort.info.selection,
        split=split.identity, seed=seed, weights=weights, versions=versions(), device=device_of(strategy),
        deterministic=deterministic and threads(),
    )  # fmt: skip


def _begin(
    recipe: Recipe,
    cohort: Cohort,
    rows: dict[str, np.ndarray],
    seed: int,
    weights_file: Path | None,
    progress: TrainingProgress,
    checkpoints: Checkpoints,
    trackers: Trackers,
    strategy: Any | None,
    saved: Checkpoint | None,
    deterministic: bool,
) -> Job:
    """The training before its first stage, or with what a checkpoint knows of its stages."""
    # Timed anew, another precision could win.
    choice = Choice(**saved.facts["choice"]) if saved else _choose(recipe, progress, deterministic)
    if strategy is not None:  # whose steps are never compiled so
        choice = replace(choice, xla=False)
    recipe = recipe.model_copy(update={"precision": choice.precision})
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    with scope_of(strategy):
        network = build_network(recipe, Normalisation.of(cohort.pixels, rows["train"]), weights_file)
    check_stages(network, recipe)
    if strategy is None:
        make_fast(network.model)
    job = Job(
        recipe, cohort, rows, seed, network, choice, progress, checkpoints, trackers, strategy, deterministic
    )
    if saved:
        job.restore(saved)
    return job


def _written_only(job: Job, saved: Checkpoint | None) -> StageFeatures | None:
    """No features where the checkpoint is the end of the training; else None, and for a head that takes features."""
    last = len(job.recipe.stages) - 1
    if saved is None or saved.batch or saved.facts["stage"] < last or job.network.encoder is not None:
        return None
    begun, ends = epochs_left(saved, job.recipe.stages[last].epochs)
    return StageFeatures([None] * (last + 1), "not used: only the run was left to write") if begun >= ends else None


def _train_stages(job: Job, features: StageFeatures, saved: Checkpoint | None) -> None:
    """All stages, or those that the checkpoint has not."""
    first = saved.facts["stage"] if saved else 0
    if saved:
        stage = job.recipe.stages[first]
        planned, (begun, ends) = len(job.history) + stage.epochs, epochs_left(saved, stage.epochs)
        where = f"at epoch {saved.epoch + 1} of {planned}" if begun < ends else f"after epoch {saved.epoch}"
        where += f", after {saved.batch} of its batches" if saved.batch else ""
        job.progress.note(f"continues {job.recipe.name} {where}")
    for number, cached in enumerate(features.stages):
        if number >= first:
            train_stage(job, number, cached, saved if number == first else None)


def _finished(job: Job) -> keras.Model:
    """The model as it is saved; raises the alarm where it has not learned."""
    make_plain(job.network.model)
    if is_collapsed(job.val_probs):
        job.alarms.append(
            "At 0.5 the finished model puts nearly every validation patch into one class: it has not learned, "
            "or its probabilities are far off."
        )
        job.progress.warn(job.alarms[-1])
    return to_float32(job.network)


def _choose(recipe: Recipe, progress: TrainingProgress, deterministic: bool) -> Choice:
    choice = choose_precision(recipe, deterministic=deterministic)
    if choice.images_per_second:
        speeds = ", ".join(f"{name} {speed:.0f}" for name, speed in choice.images_per_second.items())
        progress.note(f"precision {choice.precision} (timed, images/s: {speeds})")
    return choice


def _check_classes(cohort: Cohort, rows: dict[str, np.ndarray]) -> None:
    for part, chosen in rows.items():
        found = set(cohort.labels[chosen].tolist())
        if found != {0, 1}:
            raise DataError(
                f"The {part} patients hold {len(chosen)} patches of classes {sorted(found)}; both classes are "
                "needed. Use more patients, another seed or another split."
            )


def _check_effects(recipe: Recipe, cohort: Cohort, rows: np.ndarray) -> None:
    """Raises RecipeError for a setting that these training patches leave without effect."""
    if recipe.sampling == "patients" and not cohort.info.has_patients:
        raise RecipeError(
            f'The recipe {recipe.name} has sampling = "patients", and the patches of the cohort {cohort.info.name!r} '
            'have no patient ids. Use sampling = "classes", or prepare the patches again with a patients CSV.'
        )
    smoothing = recipe.neighbour_smoothing
    if smoothing and (training_labels(cohort, rows, smoothing) == cohort.labels[rows]).all():
        raise RecipeError(
            f"The recipe {recipe.name} has neighbour_smoothing = {smoothing}, and no training patch of the cohort "
            f"{cohort.info.name!r} has one of the other class beside it: patients or places are unknown, or the "
            "patches are a thin sample of their slides. Leave neighbour_smoothing out, or prepare complete slides."
        )
