"""Runs configurations: frozen layers are computed once, equal trainings are made once, all are measured alike."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from rich.console import Console

from ductal.console import bar
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.data.store import prepare
from ductal.data.synthetic import make_synthetic
from ductal.evaluation.metrics import join_labels
from ductal.inference.predictor import predict_in_order
from ductal.prior import networks
from ductal.prior.division import divide, hold_out, seen_in_training
from ductal.prior.faults import BACKBONES, Configuration, Reporting, Training
from ductal.prior.fitting import Examples, fit
from ductal.prior.reporting import NOTEBOOK_AUGMENT, Figures, Outcome, as_reported, figures
from ductal.training.augment import draws, make_augment
from ductal.training.network import Normalisation

# A head on stored features costs next to nothing, and needs more passes than a whole network.
HEAD_EPOCHS = 4
_BATCH = 64
SYNTHETIC_PATIENTS, SYNTHETIC_PATCHES = 12, 60


@dataclass(frozen=True)
class _Model:
    """`frozen`: patches to features, None where all layers learn; `top`: those, or patches, to probabilities."""

    frozen: Frozen | None
    top: keras.Model


class Frozen:
    """Frozen layers and what they make of the cohort's patches, computed when first asked for."""

    def __init__(self, model: keras.Model, pixels: np.ndarray) -> None:
        self.model, self._pixels = model, pixels
        self._values = np.zeros((len(pixels), model.output.shape[-1]), np.float32)
        self._known = np.zeros(len(pixels), bool)

    def of_rows(self, rows: np.ndarray, progress: Callable[[int, int], None]) -> np.ndarray:
        """Features of rows of the cohort, float32 (n, f)."""
        missing = np.unique(rows[~self._known[rows]])
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            self._values[part] = self.of_patches(self._pixels[part])
            progress(start + len(part), len(missing))
        self._known[missing] = True
        return self._values[rows]

    def of_patches(self, patches: np.ndarray) -> np.ndarray:
        """Features of patches that are in no cohort, float32 (n, f), from uint8 (n, 50, 50, 3)."""
        parts = [
            np.asarray(self.model.predict_on_batch(patches[start : start + _BATCH]))
            for start in range(0, len(patches), _BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.model.output.shape[-1]), np.float32)


class Study:
    """Measures configurations on one cohort; the same arguments give the same figures on the same machine.

    Args:
        cohort: the prepared cohort, with patient ids.
        split: the grouped division; its test part is the honest hold-out (see `ductal.prior.division`).
        epochs: passes of a network that trains whole; heads on frozen layers make `HEAD_EPOCHS` times as many.
        seed: of division, weights, order and whatever is shuffled.
        weights_file: ImageNet weights of VGG16 to use.
        console: where progress is shown.
    """

    def __init__(
        self, cohort: Cohort, split: Split, *,
        epochs: int = 8, seed: int = 42, weights_file: Path | None = None, console: Console | None = None,
    ) -> None:  # fmt: skip
        self.cohort, self.split, self.epochs, self.seed = cohort, split, epochs, seed
        self.weights_file, self.console = weights_file, console or Console(quiet=True)
        self.held_out = hold_out(cohort, split)
        self.statistics = Normalisation.of(cohort.pixels, split.rows(cohort, "train"))
        self.trained = 0  # networks that were fitted, for those who ask whether a fault trains again
        self._models: dict[Training, _Model] = {}
        self._frozen: dict[tuple[object, ...], Frozen] = {}
        self._true: dict[Training, Figures] = {}
        self._pretrained: list[np.ndarray] | None = None

    def measure(self, configuration: Configuration) -> Outcome:
        """Train what is not trained yet, and measure what the author reports and what is true.

        Raises:
            WeightsError: the ImageNet weights of VGG16 are needed and not to be had.
        """
        started = time.perf_counter()
        honest = self.true(configuration.honest)
        training, reporting = configuration.training, configuration.reporting
        parts = divide(self.cohort, self.split, training, self.seed)
        rows = parts.val if reporting.part == "val" else parts.test
        scores = as_reported(
            self._scores(training, rows, reporting), reporting, np.random.default_rng([self.seed, 1])
        )
        patients, copies = seen_in_training(self.cohort, parts.train, rows)
        return Outcome(
            configuration,
            reported=figures(self.cohort.labels[rows], scores),
            true=self.true(training),
            honest=honest,
            patients_seen=patients,
            copies_seen=copies,
            seconds=time.perf_counter() - started,
        )

    def true(self, training: Training) -> Figures:
        """The figures of the trained model on all patches of the hold-out patients, joined by patch id."""
        if training not in self._true:
            table = self.cohort.table.iloc[self.held_out]
            predictions = table[["patch_id"]].assign(prob=self._scores(training, self.held_out, Reporting()))
            joined = join_labels(predictions, table)
            self._true[training] = figures(joined["label"].to_numpy(), joined["prob"].to_numpy())
        return self._true[training]

    def _scores(self, training: Training, rows: np.ndarray, reporting: Reporting) -> np.ndarray:
        """What the model says of rows of the cohort, as they are or augmented: float32 (n,)."""
        model = self._model(training)
        if reporting.augmented:
            augment = make_augment(NOTEBOOK_AUGMENT)
            patches = np.asarray(augment(self.cohort.pixels[rows], draws(self.seed, 0, len(rows))))
            inputs = patches if model.frozen is None else model.frozen.of_patches(patches)
        else:
            inputs = self._inputs(model.frozen, rows, training.label)
        return predict_in_order(model.top, inputs)

    def _inputs(self, frozen: Frozen | None, rows: np.ndarray, label: str) -> np.ndarray:
        if frozen is None:
            return np.asarray(self.cohort.pixels[rows])
        with bar(self.console, f"Frozen layers of {label}") as progress:
            return frozen.of_rows(rows, progress)

    def _model(self, training: Training) -> _Model:
        if training not in self._models:
            self._models[training] = self._train(training)
        return self._models[training]

    def _train(self, training: Training) -> _Model:
        frozen = self._frozen_layers(training) if training.frozen else None
        parts = divide(self.cohort, self.split, training, self.seed)
        train, val = (
            Examples(self._inputs(frozen, rows, training.label), self.cohort.labels[rows])
            for rows in (parts.train, parts.val)
        )
        tried: list[tuple[float, keras.Model]] = []
        for run in range(training.runs):
            keras.utils.set_random_seed(self.seed + run)
            top = self._top(training, frozen)
            tried.append((self._fit(top, train, val, training, self.seed + run), top))
        return _Model(frozen, max(tried, key=lambda one: one[0])[1])

    def _fit(self, top: keras.Model, train: Examples, val: Examples, training: Training, seed: int) -> float:
        self.trained += 1
        epochs = self.epochs * (HEAD_EPOCHS if training.frozen else 1)
        with bar(self.console, f"Training {training.label}", "epochs") as progress:
            return fit(top, train, val, training, epochs=epochs, seed=seed, progress=progress)

    def _frozen_layers(self, training: Training) -> Frozen:
        key = (training.network, training.weights, training.input_px, training.rescaled, training.normalised)
        if key not in self._frozen:
            keras.utils.set_random_seed(self.seed)
            model = networks.build_frozen(training, self.statistics, self.weights_file)
            self._frozen[key] = Frozen(model, self.cohort.pixels)
        return self._frozen[key]

    def _top(self, training: Training, frozen: Frozen | None) -> keras.Model:
        if frozen is not None:
            return networks.build_head(training, frozen.model.output.shape[-1])
        model = networks.build_whole(training, self.statistics)
        if training.weights == "synthetic":
            if self._pretrained is None:
                self._pretrained = self._pretrain()
            model.set_weights(self._pretrained)
        return model

    def _pretrain(self) -> list[np.ndarray]:
        """Weights of the CNN after training on synthetic patches: another domain, as ImageNet is for VGG16."""
        training = BACKBONES["cnn"]
        with tempfile.TemporaryDirectory() as name:
            archive = make_synthetic(
                Path(name) / "synthetic.zip", patients=SYNTHETIC_PATIENTS,
                patches_per_patient=SYNTHETIC_PATCHES, seed=self.seed,
            )  # fmt: skip
            cohort = prepare(archive, Path(name) / "cohort", workers=1)
            split = make_split(cohort, "random", seed=self.seed, ratios=(0.8, 0.2, 0.0))
            train, val = (
                Examples(np.asarray(cohort.pixels[rows]), cohort.labels[rows])
                for rows in (split.rows(cohort, "train"), split.rows(cohort, "val"))
            )
        keras.utils.set_random_seed(self.seed)
        model = networks.build_whole(training, self.statistics)
        self._fit(model, train, val, training, self.seed)
        return model.get_weights()
