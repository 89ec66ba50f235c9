"""Honest files of every kind that `ductal` reads, for `fuzz.py` to damage."""

from __future__ import annotations

import io
import json
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fuzz_readers import CHECKPOINT_KEY, READERS
from PIL import Image


def patch(rng: np.random.Generator) -> Image.Image:
    """Noise in the size of a patch."""
    return Image.fromarray(rng.integers(0, 256, (50, 50, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def images(rng: np.random.Generator) -> dict[str, bytes]:
    """Image files of many kinds, by name."""
    one = patch(rng)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "rgb.png": encoded(one),
        "palette.png": encoded(one.quantize(16), transparency=3),
        "alpha.png": encoded(one.convert("RGBA"), exif=exif, icc_profile=b"profile" * 40),
        "grey16.png": encoded(Image.fromarray(np.arange(2500, dtype=np.uint16).reshape(50, 50))),
        "animated.png": encoded(one, save_all=True, append_images=[patch(rng)]),
        "rgb.jpg": encoded(one, "JPEG", exif=exif),
        "cmyk.jpg": encoded(one.convert("CMYK"), "JPEG", progressive=True),
        "lzw.tif": encoded(one, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(one, "TIFF", compression="tiff_adobe_deflate", save_all=True, append_images=[one]),
        "jpeg.tif": encoded(one, "TIFF", compression="jpeg"),
    }


def _table(rng: np.random.Generator) -> pd.DataFrame:
    """As predictions are kept: text of which much and little repeats itself, and numbers."""
    patients = [str(8000 + number // 40) for number in range(200)]
    names = [f"{patient}_idx5_x{number}_class0" for number, patient in enumerate(patients)]
    label = (np.arange(200) % 2).astype(np.int8)
    return pd.DataFrame({"patch_id": names, "patient": patients, "label": label, "prob": rng.random(200)})


def make_seeds(folder: Path) -> None:
    """Write a folder of honest files for each reader below `folder`."""
    rng = np.random.default_rng(0)
    for name in READERS:
        (folder / name).mkdir(parents=True)
    for name, content in images(rng).items():
        (folder / "image" / name).write_bytes(content)
    for name, method in (("deflated.zip", zipfile.ZIP_DEFLATED), ("stored.zip", zipfile.ZIP_STORED)):
        with zipfile.ZipFile(folder / "archive" / name, "w", method) as archive:
            for number in range(4):
                label = number % 2
                archive.writestr(f"77/{label}/77_idx5_x{50 * number + 1}_y51_class{label}.png", encoded(patch(rng)))
    for codec in ("snappy", "zstd", None):
        _table(rng).to_parquet(folder / "table" / f"{codec or 'plain'}.parquet", compression=codec)
    _slides(folder / "slide", rng)
    for recipe in (resources.files("ductal.training") / "recipes").iterdir():
        (folder / "recipe" / recipe.name).write_bytes(recipe.read_bytes())
    split = {"name": "own", "parts": {"train": ["1", "2"], "val": ["3"], "test": ["4"]}, "notes": ["a"]}
    (folder / "split" / "split.json").write_text(json.dumps(split))
    for label in ("cancer", "not_cancer"):
        (folder / "csv" / label).mkdir()
        (folder / "csv" / label / "one.png").write_bytes(encoded(patch(rng)))
    rows = ("file,patient,x,y", "cancer/one.png,7,1,51", "not_cancer/one.png,8,1,1")
    (folder / "csv" / "patients.csv").write_text("\n".join(rows))
    _records(folder)
    for space in (resources.files("ductal.tune") / "spaces").iterdir():
        (folder / "space" / space.name).write_bytes(space.read_bytes())
    _encoder(folder / "encoder")
    _checkpoints(folder / "checkpoint")


def _encoder(folder: Path) -> None:
    """A convolution and a mean, with half of its numbers in a file beside it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = numpy_helper.from_array(np.ones((4, 3, 5, 5), np.float32), "kernel")
    bias = numpy_helper.from_array(np.zeros(4, np.float32), "bias")
    nodes = [
        helper.make_node("Conv", ["images", "kernel", "bias"], ["maps"], strides=[5, 5]),
        helper.make_node("GlobalAveragePool", ["maps"], ["features"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
        for name, shape in (("images", (3, 50, 50)), ("features", (4, 1, 1)))
    ]
    graph = helper.make_graph(nodes, "encoder", ends[:1], ends[1:], [kernel, bias])
    onnx.save(
        helper.make_model(graph), folder / "encoder.onnx",
        save_as_external_data=True, location="numbers.bin", size_threshold=100,
    )  # fmt: skip


def _checkpoints(folder: Path) -> None:
    """Two of one training."""
    from ductal.training.checkpoint import Checkpoint, Checkpoints

    with Checkpoints(folder, CHECKPOINT_KEY, print) as checkpoints:
        for epoch in (1, 2):
            weights = [np.arange(1000, dtype=np.float32) + epoch]
            checkpoints.save(Checkpoint(epoch, 0, {"stage": 0, "rates": [0.1, 0.01]}, {"weights": weights}))


def _slides(folder: Path, rng: np.random.Generator) -> None:
    import tifffile

    pixels = np.asarray(patch(rng).resize((700, 600)))
    for name, compression in (("scan.svs", "jpeg"), ("scan.tif", "zlib")):
        about = "Aperio Image Library v11\n700x600 [0,0 700x600] (256x256) |AppMag = 20|MPP = 0.5|Filename = 4711"
        with tifffile.TiffWriter(folder / name) as file:
            for part in (pixels, pixels[::4, ::4]):
                file.write(
                    part, tile=(256, 256), photometric="rgb", compression=compression, description=about,
                    resolution=(2e4, 2e4), resolutionunit="CENTIMETER", metadata=None,
                )  # fmt: skip
    plain = Image.fromarray(pixels)
    plain.save(folder / "plain.png", dpi=(50_800, 50_800))
    plain.save(folder / "plain.tif", compression="tiff_lzw")


def _records(folder: Path) -> None:
    """A run, a network and a cohort."""
    import pandas as pd

    from ductal.data.store import prepare
    from ductal.evaluation.failures import errors_by_patient
    from ductal.evaluation.metrics import evaluate_predictions
    from ductal.record import predictions_of, save_predictions, to_json

    cohort = prepare(folder / "archive" / "stored.zip", folder / "cohort" / "c", workers=1)
    for file in list(cohort.folder.iterdir()):
        file.rename(folder / "cohort" / file.name)
    cohort.folder.rmdir()
    run = folder / "run"
    (run / "model.keras").write_bytes(b"not looked at")
    calibration = {"threshold": 0.5, "temperature": 1.2, "bias": 0.1, "d4": True, "members": 0, "spacing_um": None}
    context = dict.fromkeys(("intercept", "own", "neighbourhood", "temperature", "bias", "threshold"), 1.0)
    context |= {"format": 1, "window": 5, "patients": ["1"], "d4": True, "model": "", "track": "slide context"}
    record = {
        "name": "own", "cohort": cohort.info.model_dump(mode="json"), "recipe": {"name": "own"}, "seed": 1,
        "split": {"id": "4711", "name": "own", "counts": {"val": {"patients": 1, "patches": 4, "positives": 2}}},
        "test_opened": 0, "timings": {"train_seconds": 1.5}, "parameters": {"total": 1000},
    }  # fmt: skip
    val = predictions_of(cohort, np.arange(4), np.full(4, 0.5))
    save_predictions(run, "val", val)
    metrics = {"val": evaluate_predictions(val, 0.5), "d4": False}
    (run / "failures").mkdir()
    errors_by_patient(val, 0.5).to_csv(run / "failures" / "patients.csv", index=False)
    contents = {"calibration": calibration, "context": context, "run": record, "metrics": metrics}
    for name, content in contents.items():
        (run / f"{name}.json").write_text(to_json(content))
    pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.4]}).to_csv(run / "history.csv", index=False)
    _network().save(folder / "network" / "model.keras")


def _network() -> Any:
    import keras

    inputs = keras.Input((50, 50, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 128, offset=-1.0, dtype="float32")(inputs)
    x = keras.layers.Conv2D(4, 7, strides=4, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
