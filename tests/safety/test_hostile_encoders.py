"""ONNX files from strangers: numbers in files elsewhere, giants, damage; refused before a library reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ductal.errors import RunError
from ductal.loading import onnx_file
from ductal.loading.onnx_file import onnx_files


def outside(location: str) -> TensorProto:
    """Numbers that lie in another file."""
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("offset", "0"), ("location", location), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model_of(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    """A model that is never run."""
    return helper.make_model(helper.make_graph(list(nodes), "g", [], [], list(tensors)))


def in_initializer(location: str) -> onnx.ModelProto:
    return model_of(tensors=(outside(location),))


def in_constant(location: str) -> onnx.ModelProto:
    return model_of(helper.make_node("Constant", [], ["c"], value=outside(location)))


def in_branch(location: str) -> onnx.ModelProto:
    inner = in_constant(location).graph
    return model_of(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))


def in_list_of_tensors(location: str) -> onnx.ModelProto:
    node = helper.make_node("Custom", [], ["c"])
    node.attribute.add(name="many", type=onnx.AttributeProto.TENSORS).tensors.append(outside(location))
    return model_of(node)


def in_sparse(location: str) -> onnx.ModelProto:
    model = model_of()
    model.graph.sparse_initializer.add().values.CopyFrom(outside(location))
    return model


def in_function(location: str) -> onnx.ModelProto:
    model = model_of()
    function = model.functions.add(name="f", domain="d")
    function.node.append(in_constant(location).graph.node[0])
    return model


def in_training(location: str) -> onnx.ModelProto:
    model = model_of()
    model.training_info.add().initialization.initializer.append(outside(location))
    return model


PLACES = [in_initializer, in_constant, in_branch, in_list_of_tensors, in_sparse, in_function, in_training]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "sub/data", "C:\\data", "..", "", "a\0b"])
def test_numbers_elsewhere_are_refused(place: Callable, location: str, tmp_path: Path) -> None:
    onnx.save(place("data"), tmp_path / "m.onnx")
    (tmp_path / "data").write_bytes(bytes(16))
    assert onnx_files(tmp_path / "m.onnx") == [tmp_path / "m.onnx", tmp_path / "data"]
    (tmp_path / "m.onnx").write_bytes(place(location).SerializeToString())
    with pytest.raises(RunError, match="only plain names of files in its own folder"):
        onnx_files(tmp_path / "m.onnx")


def test_the_last_location_counts_as_for_protocol_buffers(tmp_path: Path) -> None:
    def held(field: int, content: bytes) -> bytes:
        return bytes([field << 3 | 2, len(content)]) + content

    entry = held(1, b"location") + held(2, b"data") + held(2, b"../secret")  # no library would write that
    assert onnx.StringStringEntryProto.FromString(entry).value == "../secret"
    graph = held(7, held(5, held(13, entry)))  # merged with the graph before it
    (tmp_path / "m.onnx").write_bytes(in_initializer("data").SerializeToString() + graph)
    (tmp_path / "data").write_bytes(bytes(16))
    with pytest.raises(RunError, match=r"'\.\./secret'"):
        onnx_files(tmp_path / "m.onnx")


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    onnx.save(in_initializer("data"), home / "m.onnx")
    with pytest.raises(RunError, match="is not beside it"):
        onnx_files(home / "m.onnx")
    (home / "data").symlink_to(tmp_path / "secret")
    with pytest.raises(RunError, match="a link to another folder"):
        onnx_files(home / "m.onnx")
    # A cache that keeps both files elsewhere, under other names, and links to them.
    (home / "m.onnx").rename(tmp_path / "blob")
    (home / "m.onnx").symlink_to(tmp_path / "blob")
    assert len(onnx_files(home / "m.onnx")) == 2


def test_giants_are_refused_by_their_size(tmp_path: Path) -> None:
    onnx.save(in_initializer("data"), tmp_path / "m.onnx")
    (tmp_path / "data").touch()
    os.truncate(tmp_path / "data", onnx_file.MAX_BYTES)  # takes no room
    with pytest.raises(RunError, match="larger than 8 GiB"):
        onnx_files(tmp_path / "m.onnx")
    os.truncate(tmp_path / "m.onnx", onnx_file.MAX_BYTES + 1)
    with pytest.raises(RunError, match="larger than 8 GiB"):
        onnx_files(tmp_path / "m.onnx")


def test_depth_and_number_of_parts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = in_constant("data").graph
    for _ in range(20):
        graph = model_of(helper.make_node("If", ["x"], ["y"], then_branch=graph)).graph
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(RunError, match="nested too deeply"):
        onnx_files(tmp_path / "m.onnx")
    monkeypatch.setattr(onnx_file, "MAX_MESSAGES", 100)
    onnx.save(model_of(*[helper.make_node("Relu", ["x"], ["y"])] * 100), tmp_path / "m.onnx")
    with pytest.raises(RunError, match="too many parts"):
        onnx_files(tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"\x00" * 20, b"PK\x03\x04" + bytes(40), b"\xff" * 30, b"\x08\x09"])
def test_other_files_are_no_onnx(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(RunError, match=r"no ONNX|empty"):
        onnx_files(tmp_path / "m.onnx")
    with pytest.raises(RunError, match="missing, or no file"):
        onnx_files(tmp_path)


def test_damage_gives_a_typed_error_or_none(tmp_path: Path) -> None:
    numbers = numpy_helper.from_array(np.arange(40, dtype=np.float32), "numbers")
    honest = model_of(*in_branch("data").graph.node, tensors=(numbers, outside("data"))).SerializeToString()
    (tmp_path / "data").write_bytes(bytes(16))
    draw, outcomes = np.random.default_rng(5), {"read": 0, "refused": 0}
    for _ in range(500):
        damaged = bytearray(honest)
        for place in draw.integers(0, len(honest), size=draw.integers(1, 3)):
            damaged[place] = draw.integers(0, 256)
        whole = draw.random() < 0.9
        (tmp_path / "m.onnx").write_bytes(damaged if whole else damaged[: draw.integers(1, len(honest))])
        try:
            onnx_files(tmp_path / "m.onnx")
            outcomes["read"] += 1
        except RunError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10
