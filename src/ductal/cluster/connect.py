"""Reach a Ray cluster, or say why not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ductal.errors import ClusterError

_SECONDS_TO_ANSWER = 10.0


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Join a running cluster as its driver; yields the module `ray`.

    A process that is connected already stays so, whatever `address` says: Ray has one connection a process.

    Args:
        address: "auto" for the cluster that this machine belongs to, or "host:port" of its head.

    Raises:
        ClusterError: Ray is not installed, the cluster cannot be reached, or runs other versions of Ray or Python.
    """
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    _look_for(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise _unreachable(address, error) from error
        raise ClusterError(
            f"The cluster at {address} and this machine have different versions. {' '.join(str(error).split())} "
            "Install the same on all machines: pip install -c constraints.txt 'ductal[ray]'."
        ) from error
    except (ConnectionError, ValueError, TimeoutError, SystemExit) as error:  # Ray gives up with SystemExit
        raise _unreachable(address, error) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ClusterError("Ray is not installed. Install it: pip install 'ductal[ray]'.") from error
    return ray


def _look_for(address: str) -> None:
    """Refuse what Ray would wait for in vain, for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ClusterError(
            f'The address of a cluster is "auto" or "host:port" of its head, and the command is given on a machine '
            f"of the cluster. Received: {address}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: BaseException) -> ClusterError:
    reason = next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__
    return ClusterError(
        f"No Ray cluster can be reached at {address} ({reason}). Start one: ray start --head on one machine, "
        "ray start --address HEAD:6379 on the others."
    )
