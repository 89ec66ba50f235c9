"""Run folders as an attacker would make them: one honest `.keras` file, and what can be done to it."""

from __future__ import annotations

import base64
import copy
import json
import marshal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from ductal.errors import RunError
from ductal.inference.engines import load_keras

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
Json = dict[str, Any]


def honest_model() -> keras.Model:
    """Small, with a layer of every kind that the attacks below change."""
    inputs = keras.Input((50, 50, 3), dtype="uint8", name="patches")
    x = keras.layers.Rescaling(1 / 128, offset=-1.0, dtype="float32", name="to_float")(inputs)
    x = keras.layers.Conv2D(4, 7, strides=4, activation="relu", name="convolution")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.2, name="drop")(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="probability")(x))


def save_run(model: keras.Model, folder: Path) -> Path:
    """A run folder with what prediction needs."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.4, "temperature": 1.5}))
    return folder


def members(path: Path) -> dict[str, bytes]:
    """The files in a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    """Write a zip in place of `path`."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def change_config(path: Path, change: Callable[[Json], Any]) -> None:
    """Rewrite the description of a `.keras` file; `change` alters it, or returns another one."""
    files = members(path)
    config = json.loads(files[CONFIG])
    changed = change(config)
    files[CONFIG] = json.dumps(config if changed is None else changed).encode()
    write(path, files)


def layer(config: Json, name: str) -> Json:
    """One layer of a description."""
    found: Json = next(item for item in config["config"]["layers"] if item["name"] == name)
    return found


def insert(config: Json, after: str, name: str, kind: str, **settings: Any) -> None:
    """Put a layer behind another one that has one successor."""
    layers = config["config"]["layers"]
    at = next(place for place, item in enumerate(layers) if item["name"] == after)
    new, following = copy.deepcopy(layers[at + 1]), layers[at + 1]
    new.update(class_name=kind, name=name, config={"name": name, **settings})
    following["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = [name, 0, 0]
    layers.insert(at + 1, new)


def function(module: str, name: str) -> Json:
    """A reference to a function, as in the published attacks."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def bytecode(canary: Path) -> str:
    """What Keras stores of a lambda that makes the canary file."""
    code = compile(f"lambda x: (open({str(canary)!r}, 'w').close(), x)[1]", "<attack>", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def refused(run: Path, canary: Path, match: str) -> None:
    """Loading ends in RunError with this text, and the attack left no trace: no canary, no file but those before."""
    before = sorted(run.rglob("*"))
    with pytest.raises(RunError, match=match):
        load_keras(run / "model.keras")
    assert not canary.exists()
    assert sorted(run.rglob("*")) == before


def named(one: Any) -> str:
    """An attack's name for its test; nothing for the text that goes with it."""
    return getattr(one, "__name__", "").strip("_")
