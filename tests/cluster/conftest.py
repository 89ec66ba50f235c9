"""Real Ray clusters on this machine: a head and another node, which tests may kill."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ductal

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

HERE = Path(__file__).parent
FOLDERS = [str(HERE), *(str(HERE.parent / name) for name in ("slides", "tune"))]  # of what tests and workers import
sys.path[:0] = FOLDERS
STORE_BYTES = 80 * 1024**2  # of a node's object store; nothing large goes through it


def add_node(cluster: Any, **settings: Any) -> Any:
    """A node with one processor."""
    return cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, include_dashboard=False, **settings)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A head. What its workers import is found where the tests find it."""
    folders = [str(Path(ductal.__file__).parents[1]), *FOLDERS, os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
        patch.setenv("RAY_worker_niceness", "0")  # or busy machines starve them
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        made = Cluster()
        add_node(made)
        # The tests of one session are one driver, whose workers import everything once.
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def two_nodes(cluster: Any) -> Any:
    """The cluster with two living nodes, whatever the test before has done to it."""
    if not cluster.worker_nodes:
        add_node(cluster)
    cluster.wait_for_nodes()
    return cluster
