"""Run folders whose files are not what they should be: other formats, members, weights, OpenVINO models."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from importlib import util
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from hostile import (
    CONFIG,
    WEIGHTS,
    bytecode,
    honest_model,
    members,
    named,
    refused,
    save_run,
    write,
)

from ductal.inference.engines import IR_FOLDER, load_keras
from ductal.inference.predictor import Predictor

PATCHES = np.random.default_rng(4).integers(0, 256, (5, 50, 50, 3), dtype=np.uint8)


def _legacy_h5(path: Path, canary: Path) -> None:
    # CVE-2025-9905: Keras ignores safe_mode for this format.
    inputs = keras.Input((50, 50, 3))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save(path.with_suffix(".h5"))
    with h5py.File(path.with_suffix(".h5"), "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"]["function"] = [bytecode(canary), None, None]
        file.attrs["model_config"] = json.dumps(config)
    path.with_suffix(".h5").replace(path)


def _saved_model(path: Path, canary: Path) -> None:  # noqa: ARG001
    path.unlink()
    honest_model().export(path, verbose=False)


def _pipe(path: Path, canary: Path) -> None:  # noqa: ARG001
    path.unlink()
    os.mkfifo(path)


def _pickle(path: Path, canary: Path) -> None:
    path.write_bytes(b"cposix\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.")


def _empty(path: Path, canary: Path) -> None:  # noqa: ARG001
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("attack", "match"),
    [
        (_legacy_h5, r"is no \.keras file"), (_saved_model, "missing, or no file"), (_pipe, "missing, or no file"),
        (_pickle, r"is no \.keras file"), (_empty, r"is no \.keras file"),
    ],
    ids=named,
)  # fmt: skip
def test_other_formats_are_refused(
    attack: Callable[[Path, Path], None], match: str, run: Path, canary: Path
) -> None:
    attack(run / "model.keras", canary)
    refused(run, canary, match)


@pytest.mark.parametrize("name", ["../canary", "/tmp/ductal-canary", "assets/vocabulary.txt", "model.weights.npz"])
def test_other_members_are_refused(name: str, run: Path, canary: Path) -> None:
    write(run / "model.keras", members(run / "model.keras") | {name: b"hostile"})
    refused(run, canary, "it holds")


def test_a_member_twice_is_refused(run: Path, canary: Path) -> None:
    with zipfile.ZipFile(run / "model.keras", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(CONFIG, b"{}")
    refused(run, canary, "each once")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_bomb_as_a_member_is_refused(name: str, run: Path, canary: Path) -> None:
    files = members(run / "model.keras") | {name: bytes(40 * 2**20)}
    write(run / "model.keras", files, zipfile.ZIP_DEFLATED)
    refused(run, canary, r"config\.json is too large" if name == CONFIG else "its weights are packed")


def test_a_member_that_lies_about_its_size_is_refused(run: Path, canary: Path) -> None:
    raw = bytearray((run / "model.keras").read_bytes())
    at = raw.rindex(WEIGHTS.encode()) - 46  # its record in the central directory
    struct.pack_into("<LL", raw, at + 20, 2**31, 2**31)
    (run / "model.keras").write_bytes(raw)
    refused(run, canary, r"cannot be loaded \((BadZipFile|EOFError)")


def _external_link(file: h5py.File, beside: Path) -> None:
    del file["layers"]
    file["layers"] = h5py.ExternalLink(str(beside), "/layers")


def _soft_link(file: h5py.File, beside: Path) -> None:  # noqa: ARG001
    group, name, bias = _array(file)
    file["elsewhere"] = bias
    group[name] = h5py.SoftLink("/elsewhere")


def _hard_loop(file: h5py.File, beside: Path) -> None:  # noqa: ARG001
    file["layers/other"] = file["layers"]


def _array(file: h5py.File) -> tuple[h5py.Group, str, np.ndarray]:
    """Where the dense layer keeps its bias, which is taken away, and what it was, float32 (1,)."""
    group = file["layers/dense/vars"]
    bias = group["1"][()]
    del group["1"]
    return group, "1", bias


def _strings(file: h5py.File, beside: Path) -> None:  # noqa: ARG001
    group, name, _ = _array(file)
    group.create_dataset(name, data=["x"], dtype=h5py.string_dtype())


def _external_bytes(file: h5py.File, beside: Path) -> None:
    group, name, bias = _array(file)
    beside.with_suffix(".raw").write_bytes(bias.tobytes())
    group.create_dataset(name, (1,), "f4", external=[(str(beside.with_suffix(".raw")), 0, 4)])


def _virtual(file: h5py.File, beside: Path) -> None:
    group, name, _ = _array(file)
    layout = h5py.VirtualLayout((1,), "f4")
    layout[0:1] = h5py.VirtualSource(str(beside), "layers/dense/vars/1", (1,))
    group.create_virtual_dataset(name, layout)


def _packed(file: h5py.File, beside: Path) -> None:  # noqa: ARG001
    group, name, bias = _array(file)
    group.create_dataset(name, data=bias, compression="gzip")


def _unwritten(file: h5py.File, beside: Path) -> None:  # noqa: ARG001
    group, name, _ = _array(file)
    group.create_dataset(name, (2**40,), "f4")


def _missing(file: h5py.File, beside: Path) -> None:  # noqa: ARG001
    _array(file)


def _put_back(file: h5py.File, beside: Path) -> None:  # noqa: ARG001
    group, name, bias = _array(file)
    group.create_dataset(name, data=bias)


def _with_weights(run: Path, change: Callable[[h5py.File, Path], None], folder: Path) -> None:
    """Have the weights of a run changed; `change` also gets the path of a whole copy of them."""
    files = members(run / "model.keras")
    path, beside = folder / "w.h5", folder / "beside.h5"
    for copy in (path, beside):
        copy.write_bytes(files[WEIGHTS])
    with h5py.File(path, "r+") as file:
        change(file, beside)
    write(run / "model.keras", files | {WEIGHTS: path.read_bytes()})


@pytest.mark.parametrize(
    ("attack", "match"),
    [
        (_external_link, "link to another file or place"), (_soft_link, "link to another file or place"),
        (_hard_loop, "refer to each other"), (_strings, "something other than numbers"),
        (_external_bytes, "packed, or lie outside"), (_virtual, "packed, or lie outside"),
        (_packed, "packed, or lie outside"), (_unwritten, "shorter than they say"),
        (_missing, "need more numbers than its weights file holds"),
    ],
    ids=named,
)  # fmt: skip
def test_weights_that_are_more_than_numbers_are_refused(
    attack: Callable[[h5py.File, Path], None], match: str, run: Path, canary: Path, tmp_path: Path
) -> None:
    _with_weights(run, attack, tmp_path)
    refused(run, canary, match)


def test_weights_that_were_written_anew_are_read(run: Path, tmp_path: Path) -> None:
    """Without this, the tests above could pass because their files are broken in another way."""
    expected = load_keras(run / "model.keras").predict_on_batch(PATCHES)
    _with_weights(run, _put_back, tmp_path)
    np.testing.assert_array_equal(load_keras(run / "model.keras").predict_on_batch(PATCHES), expected)


@pytest.mark.skipif(util.find_spec("openvino") is None, reason="openvino is not installed")
def test_an_openvino_model_of_a_stranger_is_not_used(run: Path, tmp_path: Path) -> None:
    """It would give probabilities that are not those of the network in the run."""
    expected = Predictor.from_run(run, engine="openvino").predict(PATCHES)
    keras.utils.set_random_seed(99)
    other = save_run(honest_model(), tmp_path / "other")
    assert abs(Predictor.from_run(other, engine="openvino").predict(PATCHES) - expected).max() > 1e-3
    for name in ("model.xml", "model.bin"):
        shutil.copy(other / IR_FOLDER / name, run / IR_FOLDER / name)
    np.testing.assert_array_equal(Predictor.from_run(run, engine="openvino").predict(PATCHES), expected)


@pytest.mark.skipif(util.find_spec("openvino") is None, reason="openvino is not installed")
def test_a_seal_of_another_user_does_not_hold(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUCTAL_CACHE", str(tmp_path / "stranger"))
    Predictor.from_run(run, engine="openvino")
    seal = (run / IR_FOLDER / "seal").read_text()
    monkeypatch.setenv("DUCTAL_CACHE", str(tmp_path / "mine"))
    Predictor.from_run(run, engine="openvino")
    assert (run / IR_FOLDER / "seal").read_text() != seal
    assert (tmp_path / "mine" / "seal.key").stat().st_mode & 0o077 == 0
