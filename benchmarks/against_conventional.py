"""One recipe against the conventional Keras notebook, on the same patches and for the same epochs.

The conventional pipeline is `ImageDataGenerator.flow_from_directory` on PNG files in class folders, float32, Keras's
defaults, batches of 32 at 50 px and of 16 above, and the whole network forward in every epoch. Learning rates and
augmentation are those of the recipe as far as the generator has them. Both run in a process of their own, in turns of
seconds, see `in_turn.py`.

    python benchmarks/against_conventional.py vgg16-frozen idc_sample.zip --patients 60 --epochs 10 --ratio 12

`--ratio` is what is expected: the turns of the conventional side are so many times longer than ours, so that both end
at about the same time; `in_turn` in the output is the share of each side's time for which that held. `--views` is the
number of stored views of each patch instead of the recipe's. Prints one JSON object: seconds end to end (frozen
features included), training images per second of the median epoch, the best validation ROC AUC, and the ratios to the
conventional pipeline.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from in_turn import in_turn
from PIL import Image

from ductal.console import make_console, quiet_tensorflow
from ductal.data.cohort import Cohort
from ductal.data.split import Split
from ductal.data.splitting import make_split
from ductal.data.store import prepare
from ductal.training.recipe import Recipe
from ductal.training.recipe_file import load_recipe


def shortened(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with exactly `epochs` epochs in each stage: nothing stops early."""
    stages = [
        stage.model_copy(
            update={
                "epochs": epochs,
                "early_stopping": stage.early_stopping.model_copy(update={"patience": epochs + 1}),
            }
        )
        for stage in recipe.stages
    ]
    return recipe.model_copy(update={"stages": stages})


def write_folders(cohort: Cohort, split: Split, folder: Path) -> None:
    """folder/train|val/0|1/*.png."""
    for part in ("train", "val"):
        for row in split.rows(cohort, part):
            target = folder / part / str(cohort.labels[row]) / f"{row:06d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(cohort.pixels[row]).save(target)


def conventional(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train as the usual notebook does."""
    import os

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator
    from sklearn.metrics import roc_auc_score

    from ductal.training.network import set_trainable

    side = recipe.input_px
    settings = {"target_size": (side, side), "class_mode": "binary", "batch_size": 32 if side <= 50 else 16}
    augmented = ImageDataGenerator(
        rescale=1 / 255, rotation_range=recipe.augment.rotation_degrees, zoom_range=recipe.augment.zoom,
        width_shift_range=recipe.augment.shift, height_shift_range=recipe.augment.shift,
        horizontal_flip=True, vertical_flip=True,
    )  # fmt: skip
    keras.utils.set_random_seed(42)
    train = augmented.flow_from_directory(folder / "train", **settings)
    val = ImageDataGenerator(rescale=1 / 255).flow_from_directory(folder / "val", shuffle=False, **settings)
    epochs: list[tuple[float, float]] = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            seconds = time.perf_counter() - self.started
            auc = roc_auc_score(val.classes, self.model.predict(val, verbose=0)[:, 0])
            epochs.append((seconds, float(auc)))
            print(f"  conventional epoch {len(epochs)}: {seconds:.1f} s, val AUC {auc:.4f}", flush=True)

    started = time.perf_counter()
    network = usual_network(recipe)
    for stage in recipe.stages:
        set_trainable(network, stage, recipe)
        adam = keras.optimizers.Adam(stage.learning_rate)
        network.model.compile(adam, "binary_crossentropy", metrics=["accuracy"])
        network.model.fit(train, epochs=stage.epochs, callbacks=[Watch()], verbose=0)
    return {
        "seconds": time.perf_counter() - started,
        "images_per_second": [train.samples / seconds for seconds, _ in epochs],
        "val_auc": [auc for _, auc in epochs],
    }


def usual_network(recipe: Recipe) -> Any:
    """The backbone with Flatten, Dense and Dropout, or global pooling for EfficientNet, on inputs of 0 to 1."""
    import keras

    from ductal.training.network import Network
    from ductal.training.weights import load_imagenet

    shape = (recipe.input_px, recipe.input_px, 3)
    if recipe.backbone == "VGG16":
        base = keras.applications.VGG16(include_top=False, weights=None, input_shape=shape)
        load_imagenet(base, "VGG16")
        x = keras.layers.Flatten()(base.output)
        x = keras.layers.Dense(256, activation="relu")(x)
        x = keras.layers.Dropout(0.5)(x)
    else:
        base = getattr(keras.applications, recipe.backbone)(include_top=False, weights=None, input_shape=shape)
        x = keras.layers.GlobalAveragePooling2D()(base.output)
        x = keras.layers.Dropout(0.2)(x)
    model = keras.Model(base.input, keras.layers.Dense(1, activation="sigmoid")(x))
    return Network(model, [layer.name for layer in base.layers], "ImageNet")


def ours(recipe: Recipe, cohort_folder: Path, split: Split, out: Path) -> dict[str, Any]:
    """Train with ductal; everything it computes first is in the time."""
    quiet_tensorflow()
    import pandas as pd

    from ductal.training.progress import TrainingProgress
    from ductal.training.trainer import train

    cohort = Cohort.open(cohort_folder)
    started = time.perf_counter()
    with TrainingProgress(recipe.name, make_console()) as progress:
        run = train(recipe, cohort, split, out, progress=progress)
    history = pd.read_csv(run / "history.csv")
    return {
        "seconds": time.perf_counter() - started,
        "images_per_second": history["images_per_second"].tolist(),
        "val_auc": history["val_auc"].tolist(),
        "precision": json.loads((run / "run.json").read_text())["precision"],
    }


def shortly(one: dict[str, Any]) -> dict[str, Any]:
    """Seconds, median rate and best AUC of one training."""
    return {
        "seconds": round(one["seconds"], 1),
        "images_per_second": round(float(np.median(one["images_per_second"])), 1),
        "best_val_auc": round(max(one["val_auc"]), 4),
    }


def compare(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Both trainings, and the ratios ours to conventional."""
    one, base = shortly(new), shortly(old)
    return {
        "conventional": base,
        "ductal": one | {"precision": new["precision"]},
        "ratio_end_to_end": round(base["seconds"] / one["seconds"], 2),
        "ratio_images_per_second": round(one["images_per_second"] / base["images_per_second"], 2),
        "auc_difference": round(one["best_val_auc"] - base["best_val_auc"], 4),
    }


def options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("source", type=Path)
    parser.add_argument("--patients", type=int)
    parser.add_argument("--limit-per-class", type=int)
    parser.add_argument("--epochs", type=int, default=10, help="in each stage")
    parser.add_argument("--split", default="published+extra")
    parser.add_argument("--views", type=int, help="stored views of each patch; by default the recipe's")
    parser.add_argument("--ratio", type=float, default=4.0, help="length of the conventional turns in ours")
    parser.add_argument("--turn", type=float, default=0.5, help="length of ours, in seconds")
    return parser.parse_args()


def main() -> None:
    """Run the comparison."""
    asked = options()
    recipe = shortened(load_recipe(asked.recipe), asked.epochs)
    name = recipe.name
    if asked.views is not None:
        name = f"{name}, {asked.views} views"
        recipe = recipe.model_copy(update={"cached_views": asked.views})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cohort = prepare(
            asked.source, folder / "cohort", patients=asked.patients, limit_per_class=asked.limit_per_class
        )
        split = make_split(cohort, asked.split)
        write_folders(cohort, split, folder / "png")
        works = [
            (conventional, (recipe, folder / "png")),
            (ours, (recipe, cohort.folder, split, folder / "run")),
        ]
        (old, new), together = in_turn(works, [asked.turn * asked.ratio, asked.turn])
        result = {
            "recipe": name, "views": recipe.cached_views, "epochs": asked.epochs,
            "train_patches": len(split.rows(cohort, "train")),
        }  # fmt: skip
    print(json.dumps(result | compare(old, new) | {"in_turn": [round(share, 3) for share in together]}))


if __name__ == "__main__":
    main()
