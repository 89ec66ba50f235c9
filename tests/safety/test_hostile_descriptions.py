"""Networks from a stranger: the published attacks on Keras's loaders end in RunError, and nothing of them happens."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hostile import (
    CONFIG,
    Json,
    bytecode,
    change_config,
    function,
    layer,
    members,
    named,
    refused,
    save_run,
    write,
)

from ductal.inference.engines import load_keras
from ductal.training.network import Normalisation, build_network
from ductal.training.recipe_file import load_recipe

PATCHES = np.random.default_rng(4).integers(0, 256, (5, 50, 50, 3), dtype=np.uint8)


def lambda_layer(canary: Path) -> Json:
    """The layer of CVE-2024-3660."""
    value = {"code": bytecode(canary), "defaults": None, "closure": None}
    return {"function": {"class_name": "__lambda__", "config": value}, "arguments": {}, "name": "drop"}


def as_lambda(config: Json, settings: Json) -> None:
    """Put a Lambda layer in the place of the dropout layer."""
    layer(config, "drop").update(class_name="Lambda", config={"name": "drop", "trainable": True, **settings})


@pytest.mark.parametrize("name", ["vgg16-full", "efficientnetb0-scratch"])
def test_the_networks_of_this_package_load_as_keras_loads_them(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name).model_copy(update={"weights": "random"})
    model = build_network(recipe, Normalisation((200.0, 150.0, 180.0), (40.0, 50.0, 60.0))).model
    run = save_run(model, tmp_path / "run")
    found = load_keras(run / "model.keras")
    expected = model.predict_on_batch(PATCHES)
    np.testing.assert_array_equal(found.predict_on_batch(PATCHES), expected)
    assert [one.name for one in found.layers] == [one.name for one in model.layers]
    for mine, theirs in zip(found.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    found.save(tmp_path / "again.keras")  # what was loaded can be saved, and loaded again
    np.testing.assert_array_equal(load_keras(tmp_path / "again.keras").predict_on_batch(PATCHES), expected)


def test_the_attack_with_bytecode_works_where_it_is_let(run: Path, canary: Path) -> None:
    """Without this, the tests below could pass because the attack is built wrongly."""
    change_config(run / "model.keras", lambda config: as_lambda(config, lambda_layer(canary)))
    keras.models.load_model(run / "model.keras", compile=False, safe_mode=False)
    assert canary.exists()


def _lambda_bytecode(config: Json, canary: Path) -> None:
    as_lambda(config, lambda_layer(canary))


def _module_injection(config: Json, canary: Path) -> None:
    # CVE-2025-1550: any function of any module, called with arguments of the attacker's choice.
    layer(config, "drop").update(
        module="os", class_name="function", config="system", registered_name="system",
        inbound_nodes=[{"args": [f"touch {canary}"], "kwargs": {}}],
    )  # fmt: skip


def _class_of_a_module(config: Json, canary: Path) -> None:
    layer(config, "drop").update(module="subprocess", class_name="Popen", config={"args": ["touch", str(canary)]})


def _function_as_activation(config: Json, canary: Path) -> None:  # noqa: ARG001
    layer(config, "convolution")["config"]["activation"] = function("os", "system")


def _switches_safe_mode_off(config: Json, canary: Path) -> None:
    # CVE-2025-9906: the file itself calls the function that turns the protection off, then brings a lambda.
    arguments = {"inputs": f"touch {canary}"}
    as_lambda(config, {"function": function("keras.config", "enable_unsafe_deserialization"), "arguments": arguments})


def _loads_another_model(config: Json, canary: Path) -> None:
    # CVE-2025-8747 and its kind: functions of Keras itself that read, fetch or load.
    settings = {"function": function("keras.models", "load_model"), "arguments": {"safe_mode": False}}
    as_lambda(config, settings)
    layer(config, "drop")["inbound_nodes"] = [{"args": [], "kwargs": {"inputs": str(canary)}}]


def _fetches_a_file(config: Json, canary: Path) -> None:
    layer(config, "drop").update(
        module="keras.utils", class_name="function", config="get_file", registered_name="get_file",
        inbound_nodes=[{"args": [canary.name], "kwargs": {"origin": f"file:///etc/hostname#{canary}"}}],
    )  # fmt: skip


def _reads_a_vocabulary(config: Json, canary: Path) -> None:  # noqa: ARG001
    # CVE-2025-12058: the layer reads any file, or address, at load.
    settings = {"name": "drop", "vocabulary": "/etc/passwd"}
    layer(config, "drop").update(class_name="StringLookup", config=settings)


def _torch_pickle(config: Json, canary: Path) -> None:  # noqa: ARG001
    # CVE-2025-49655: the layer unpickles its settings.
    settings = {"name": "drop", "module": base64.b64encode(b"cos\nsystem\n(S'true'\ntR.").decode()}
    layer(config, "drop").update(class_name="TorchModuleWrapper", config=settings)


def _saved_model_layer(config: Json, canary: Path) -> None:
    settings = {"name": "drop", "filepath": str(canary.parent)}
    layer(config, "drop").update(class_name="TFSMLayer", config=settings)


def _registered_class(config: Json, canary: Path) -> None:  # noqa: ARG001
    layer(config, "drop")["registered_name"] = "package>Dropout"


def _type_specification(config: Json, canary: Path) -> None:  # noqa: ARG001
    layer(config, "drop")["inbound_nodes"][0]["args"] = [
        {"class_name": "__typespec__", "spec_name": "system", "module": "os", "registered_name": None, "config": []}
    ]


def _lambda_as_argument(config: Json, canary: Path) -> None:
    value = {"class_name": "__lambda__", "config": {"value": {"code": bytecode(canary)}}}
    layer(config, "drop")["inbound_nodes"][0]["kwargs"] = {"mask": value}


def _numpy_in_settings(config: Json, canary: Path) -> None:  # noqa: ARG001
    value = {"class_name": "__numpy__", "config": {"value": [0] * 10, "dtype": "object"}}
    layer(config, "to_float")["config"]["scale"] = value


def _custom_dtype(config: Json, canary: Path) -> None:  # noqa: ARG001
    layer(config, "drop")["config"]["dtype"] = {"module": "os", "class_name": "system", "config": {"name": "float32"}}


def _sequential(config: Json, canary: Path) -> None:  # noqa: ARG001
    config["class_name"], config["module"] = "Sequential", "keras"


def _subclass(config: Json, canary: Path) -> Json:  # noqa: ARG001
    return {"module": "os", "class_name": "system", "config": {}, "registered_name": None}


CALLED = "'drop' is called with more than what other layers give"
CODE = [
    (_lambda_bytecode, "'Lambda', which is not allowed"),
    (_module_injection, "an input of 'drop' is not written as Keras does"),
    (_class_of_a_module, r"'subprocess'\.'Popen', which is not allowed"),
    (_function_as_activation, "is not an activation of the allowed ones"),
    (_switches_safe_mode_off, "'Lambda', which is not allowed"),
    (_loads_another_model, CALLED),
    (_fetches_a_file, CALLED),
    (_reads_a_vocabulary, "'StringLookup', which is not allowed"),
    (_torch_pickle, "'TorchModuleWrapper', which is not allowed"),
    (_saved_model_layer, "'TFSMLayer', which is not allowed"),
    (_registered_class, r"'keras\.layers'\.'Dropout', which is not allowed"),
    (_type_specification, "is given a '__typespec__', which is not allowed"),
    (_lambda_as_argument, CALLED),
    (_numpy_in_settings, "a setting of a layer is no plain value"),
    (_custom_dtype, "a layer's dtype is not a plain policy"),
    (_sequential, "it is a 'Sequential', not a functional Keras model"),
    (_subclass, "it is a 'system', not a functional Keras model"),
]


@pytest.mark.parametrize(("attack", "match"), CODE, ids=named)
def test_code_in_the_description_is_refused(
    attack: Callable[[Json, Path], Any], match: str, run: Path, canary: Path
) -> None:
    change_config(run / "model.keras", lambda config: attack(config, canary))
    refused(run, canary, f"model.keras was refused: .*{match}")


def test_what_is_said_of_training_is_not_read(run: Path, canary: Path) -> None:
    expected = load_keras(run / "model.keras").predict_on_batch(PATCHES)

    def change(config: Json) -> None:
        attack = {"module": "os", "class_name": "system", "config": {"command": f"touch {canary}"}}
        config["compile_config"] = {"optimizer": attack, "loss": function("os", "system"), "metrics": [attack]}
        config["build_config"] = {"input_shape": [None, 10**6, 10**6, 3]}
        layer(config, "convolution")["config"]["kernel_initializer"] = attack
        layer(config, "convolution")["config"]["kernel_regularizer"] = function("os", "system")

    change_config(run / "model.keras", change)
    np.testing.assert_array_equal(load_keras(run / "model.keras").predict_on_batch(PATCHES), expected)
    assert not canary.exists()


def test_layers_in_a_ring_are_refused(run: Path, canary: Path) -> None:
    def ring(config: Json) -> None:
        layer(config, "convolution")["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = ["pool", 0, 0]

    change_config(run / "model.keras", ring)
    refused(run, canary, "'convolution' is not connected to layers before it")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"[" * 100_000, r"cannot be loaded \(RecursionError"), (b"{", r"cannot be loaded \(JSONDecodeError"),
        (b"\xff\xfe", r"cannot be loaded \(JSONDecodeError"), (b"[]", "its description is not written"),
        (b'"text"', "its description is not written"), (b"{}", "not a functional Keras model"),
        (b'{"class_name": "Functional", "config": 3}', "its description is not written"),
        (b'{"class_name": "Functional", "config": {}}', "does not have 1 to 2000 layers"),
    ],
)  # fmt: skip
def test_a_description_that_is_none_is_refused(content: bytes, match: str, run: Path, canary: Path) -> None:
    write(run / "model.keras", members(run / "model.keras") | {CONFIG: content})
    refused(run, canary, match)


def _large_inside(config: Json) -> None:
    inside = [
        {"module": "keras.layers", "class_name": kind, "config": settings, "registered_name": None}
        for kind, settings in (
            ("ZeroPadding2D", {"name": "large", "padding": 10**4}),
            ("GlobalAveragePooling2D", {"name": "small"}),
        )
    ]
    layer(config, "pool").update(module="keras", class_name="Sequential", config={"name": "pool", "layers": inside})


def _large_depthwise(config: Json) -> None:
    settings = {"name": "convolution", "filters": 1, "kernel_size": 1, "depth_multiplier": 40}
    layer(config, "convolution").update(class_name="SeparableConv2D", config=settings)
    resized = {"name": "to_float", "height": 1024, "width": 1024, "dtype": "float32"}
    layer(config, "to_float").update(class_name="Resizing", config=resized)


def _padded_and_resized(config: Json) -> None:
    settings = {"name": "to_float", "height": 1024, "width": 1, "pad_to_aspect_ratio": True}
    layer(config, "to_float").update(class_name="Resizing", config=settings)


def _dilated(config: Json) -> None:
    settings = {"name": "convolution", "kernel_size": 3, "dilation_rate": [10**5, 1], "padding": "same"}
    layer(config, "convolution").update(class_name="DepthwiseConv2D", config=settings)


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (_large_inside, "'pool' computes"), (_large_depthwise, "'convolution' computes"),
        (_padded_and_resized, "pads what it resizes"), (_dilated, "dilated by more"),
    ],
)  # fmt: skip
def test_what_a_layer_computes_on_its_way_is_bounded_too(
    attack: Callable[[Json], None], said: str, run: Path, canary: Path
) -> None:
    change_config(run / "model.keras", attack)
    refused(run, canary, said)


def test_the_command_ends_with_exit_code_9(run: Path, canary: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(PATCHES[0]).save(tmp_path / "patch.png")
    change_config(run / "model.keras", lambda config: _module_injection(config, canary))
    command = [sys.executable, "-m", "ductal", "predict", run, tmp_path / "patch.png", "--out", tmp_path / "p.csv"]
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 9
    assert ended.stderr.startswith("Error: ")
    assert "Traceback" not in ended.stderr
    assert not canary.exists()
    assert not (tmp_path / "p.csv").exists()
