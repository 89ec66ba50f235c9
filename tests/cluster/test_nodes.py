"""What makes a cluster useless is told before any work: no Ray, no cluster, other versions, folders that differ."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slide_files import make_known_run
from typer.testing import CliRunner

from ductal.cli import app
from ductal.cluster.connect import connected
from ductal.cluster.nodes import check_nodes, places_of
from ductal.errors import ClusterError


@pytest.fixture
def disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has joined no cluster."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'ductal\[ray\]'"), connected("auto"):
        pass


@pytest.mark.usefixtures("disconnected")
@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", ":6379", "head:99999", ""])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ClusterError), connected(address):
        pass


@pytest.mark.usefixtures("disconnected")
def test_nobody_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"No Ray cluster can be reached at {address}"), connected(address):
            pass


@pytest.mark.usefixtures("disconnected")
def test_other_versions_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 1.0.0")

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(ClusterError, match=r"different versions.*Ray: 1.0.0"), connected("auto"):
        pass


@pytest.mark.usefixtures("disconnected")
def test_exit_code(tmp_path: Path) -> None:
    run = make_known_run(tmp_path / "run")
    (tmp_path / "a.svs").touch()
    result = CliRunner().invoke(app, ["slide", str(run), str(tmp_path / "a.svs"), "--ray", "head"])
    assert result.exit_code == 12
    assert "Received: head" in result.output


def test_a_good_cluster(two_nodes: Any, tmp_path: Path) -> None:
    import ray

    (tmp_path / "slide").write_bytes(b"pixels")
    assert two_nodes is not None
    assert check_nodes(ray, tmp_path / "out", [tmp_path / "slide"], 1) == []
    assert list((tmp_path / "out").iterdir()) == []
    assert places_of(ray, 1) == 2


def test_no_node_is_large_enough(two_nodes: Any, tmp_path: Path) -> None:
    import ray

    assert two_nodes is not None
    with pytest.raises(ClusterError, match="shall have 64 processors, and no node of the cluster has more than 1"):
        check_nodes(ray, tmp_path, [], 64)


@pytest.fixture
def own_folder(tmp_path: Path) -> Iterator[Path]:
    """A path that leads other processes elsewhere, as on a machine that does not have the disk."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system has no paths that differ between processes")
    handle = os.open(tmp_path, os.O_RDONLY)
    high = 900  # no process of Ray has as many open files
    os.dup2(handle, high)
    yield Path(f"/proc/self/fd/{high}")
    os.close(high)
    os.close(handle)


def test_a_folder_that_a_node_does_not_see(two_nodes: Any, tmp_path: Path, own_folder: Path) -> None:
    import ray

    assert two_nodes is not None
    with pytest.raises(ClusterError, match=rf"does not see {own_folder / 'out'} as this machine does"):
        check_nodes(ray, own_folder / "out", [], 1)
    (tmp_path / "slide").write_bytes(b"pixels")
    with pytest.raises(ClusterError, match=rf"does not see {own_folder / 'slide'} as this machine does"):
        check_nodes(ray, tmp_path / "out", [own_folder / "slide"], 1)
    assert list((tmp_path / "out").iterdir()) == []


def test_other_versions_of_a_library(two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has seems newer than what the nodes have."""
    import importlib.metadata

    import ray

    real = importlib.metadata.version
    assert two_nodes is not None
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.1" if name == "numpy" else real(name))
    with pytest.raises(ClusterError, match=rf"other versions: numpy {real('numpy')}, here 99.1"):
        check_nodes(ray, tmp_path, [], 1)
