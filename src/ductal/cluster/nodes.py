"""Before any work: every node sees the folders of the driver, writes there, and has the same versions."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ductal.errors import ClusterError
from ductal.files import refusals_of

# What results depend on. Ray compares its own version and Python's.
PACKAGES = (
    "numpy", "scipy", "pandas", "pillow", "openslide-python", "tifffile", "openvino", "onnxruntime", "keras",
    "tensorflow",
)  # fmt: skip
_SECONDS_TO_ANSWER = 120.0  # importing on a cold network disk
_SECONDS_TO_APPEAR = 10.0  # of a file that another machine has written on a network disk


class Node(NamedTuple):
    """A node of the cluster that can run a task."""

    id: str
    name: str  # host and address, for messages


def usable_nodes(ray: Any, cpus: int) -> list[Node]:
    """Nodes that have at least `cpus` processors. Raises ClusterError where there is none."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    found = [
        Node(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})")
        for node in alive
        if node["Resources"].get("CPU", 0) >= cpus
    ]
    if not found:
        most = max((node["Resources"].get("CPU", 0) for node in alive), default=0)
        raise ClusterError(
            f"A task shall have {cpus} processors, and no node of the cluster has more than {most:g}. "
            "Ask for fewer with --ray-cpus, or add larger nodes."
        )
    return found


def places_of(ray: Any, cpus: int) -> int:
    """How many tasks of `cpus` processors the nodes hold at once, were they idle. Raises ClusterError for none."""
    usable = {node.id for node in usable_nodes(ray, cpus)}
    return sum(int(node["Resources"]["CPU"] // cpus) for node in ray.nodes() if node["NodeID"] in usable)


def check_nodes(
    ray: Any, out: Path, files: Sequence[Path], cpus: int, packages: Sequence[str] = PACKAGES
) -> list[str]:
    """Refuse a cluster whose nodes would give other results, or none.

    All nodes must see `out` and `files` under the paths that this machine has for them, so they share a disk. A node
    reads a token in `out` that is made for this call, and answers with a file beside it.

    Args:
        ray: the connected module.
        out: folder of the results, absolute.
        files: what tasks read, absolute; sizes and first MiB are compared.
        cpus: of a task.
        packages: whose versions must be those of this machine.

    Returns:
        What a user should know, sentence by sentence.

    Raises:
        ClusterError: a node does not see the same files, cannot write in `out`, has other versions, or is silent.
        StorageError: `out` cannot be written here.
    """
    nodes = usable_nodes(ray, cpus)
    probe = _make_probe()
    with _token(out) as folder:
        arguments = (str(folder), [str(file) for file in files], tuple(packages))
        here = probe(*arguments, "driver")
        answers = {node: _ask(ray, probe, node, arguments) for node in nodes}
        for node in nodes:
            there = _answer(ray, node, answers[node])
            _refuse_blind(node, there, here, out, folder)
            _refuse_other_versions(node, there["versions"], here["versions"])
            here["bfloat16"] |= there["bfloat16"]
    if len(here["bfloat16"]) > 1:
        return [
            "some nodes have bfloat16 and others not: probabilities of a run trained in 16 bits differ by up to 0.02 "
            "between them"
        ]
    return []


@contextmanager
def _token(out: Path) -> Iterator[Path]:
    folder = out / f".ray-{secrets.token_hex(8)}"
    with refusals_of(folder):
        folder.mkdir(parents=True)
        (folder / "token").write_text(secrets.token_hex(16), encoding="ascii")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ask(ray: Any, probe: Callable[..., dict[str, Any]], node: Node, arguments: tuple[Any, ...]) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
    task = ray.remote(probe).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
    return task.remote(*arguments, node.id)


def _answer(ray: Any, node: Node, reference: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = ray.get(reference, timeout=_SECONDS_TO_ANSWER)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ClusterError(
            f"The node {node.name} did not answer ({reason}). Look at it with `ray status`, or remove it."
        ) from error
    return found


def _refuse_blind(node: Node, there: dict[str, Any], here: dict[str, Any], out: Path, folder: Path) -> None:
    shared = "All nodes must see the same folders under the same paths: use a disk that they share."
    if there["token"] != here["token"]:
        raise ClusterError(f"The node {node.name} does not see {out} as this machine does. {shared}")
    for file, known in here["files"].items():
        if there["files"][file] != known:
            raise ClusterError(f"The node {node.name} does not see {file} as this machine does. {shared}")
    deadline = time.monotonic() + _SECONDS_TO_APPEAR
    while not (folder / node.id).exists():
        if time.monotonic() >= deadline:
            why = f" ({there['refused']})" if there["refused"] else ""
            raise ClusterError(f"The node {node.name} cannot write in {out}{why}. {shared}")
        time.sleep(0.1)


def _refuse_other_versions(node: Node, there: dict[str, str], here: dict[str, str]) -> None:
    differing = [f"{name} {there[name]}, here {here[name]}" for name in here if there[name] != here[name]]
    if differing:
        raise ClusterError(
            f"The node {node.name} has other versions: {'; '.join(differing)}. "
            "Install the same on all machines: pip install -c constraints.txt 'ductal[ray]' and the extras in use."
        )


def _make_probe() -> Callable[..., dict[str, Any]]:
    """A function made here travels as code, so that a node without ductal can run it, too."""

    def probe(folder: str, files: list[str], packages: tuple[str, ...], name: str) -> dict[str, Any]:
        import hashlib
        from importlib.metadata import PackageNotFoundError, version
        from pathlib import Path

        def look(path: str) -> str:
            try:
                with Path(path).open("rb") as handle:
                    return f"{Path(path).stat().st_size} {hashlib.sha256(handle.read(1 << 20)).hexdigest()}"
            except OSError as error:
                return str(error)

        found: dict[str, Any] = {"versions": {}, "bfloat16": set(), "refused": ""}
        for package in packages:
            try:
                found["versions"][package] = version(package)
            except PackageNotFoundError:
                found["versions"][package] = "not installed"
        try:
            import ductal
            from ductal.machine import cpu

            found["versions"]["ductal"] = ductal.__version__
            found["bfloat16"] = {cpu().has_bfloat16}
        except ImportError:
            found["versions"]["ductal"] = "not installed"
        found["token"] = look(f"{folder}/token")
        found["files"] = {file: look(file) for file in files}
        try:
            Path(folder, name).touch()
        except OSError as error:
            found["refused"] = str(error)
        return found

    return probe
