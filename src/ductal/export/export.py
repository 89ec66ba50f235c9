"""`ductal.export_run`: a finished run as a file for another program, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ductal.errors import ExportError
from ductal.export.formats import checked_format
from ductal.files import atomic_folder
from ductal.inference.predictor import read_settings
from ductal.loading.records import read_json
from ductal.record import to_json

STEPS = 5
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Exported:
    """An export: its folder, and what its `ductal.json` says."""

    folder: Path
    contract: dict[str, Any]

    def __str__(self) -> str:
        parity, speed = self.contract["parity"], self.contract["speed"]
        lines = [
            f"{self.contract['format']}, {self.contract['precision']}: {self.contract['bytes'] / 1e6:.1f} MB, "
            f"{speed['images_per_second']:.0f} images/s on this machine",
            f"Largest difference from the run: {parity['largest_difference']:.2g} (allowed: {parity['bound']:g}) on "
            f"{parity['patches']:,} {parity['source']}; {parity['calls_changed']} calls changed",
        ]
        for name, values in parity["cost"].items() if self.contract["precision"] != "float32" else ():
            lines.append(f"{name.replace('_', ' ')}: {values['run']:.4f} -> {values['export']:.4f}")
        return "\n".join(lines)


def default_folder(run: Path, to: str, precision: str, *, d4: bool) -> Path:
    """Where an export goes that is not told where: into the run."""
    return run / "exports" / "-".join([to, precision, *(["d4"] if d4 else [])])


def export_run(
    run: str | Path,
    to: str,
    out: str | Path | None = None,
    *,
    precision: str = "float32",
    d4: bool = False,
    cohort: str | Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write a finished run, which may be an ensemble, in another format, checked by that format's own runtime.

    The model takes uint8 patches (n, 50, 50, 3) and gives calibrated probabilities (n,): preprocessing, temperature
    and bias are in its graph. `ductal.json` beside it says the rest, and what the check found.

    Example:
        >>> exported = ductal.export_run("ductal-out/runs/vgg16-full", "onnx")  # doctest: +SKIP

    Args:
        run: a finished run.
        to: "openvino", "onnx", "litert", "savedmodel" or "tfjs".
        out: the folder to write; by default ``exports/<format>-<precision>`` in the run.
        precision: "float32", "float16", "bfloat16" or "int8"; which of them, depends on the format.
        d4: average over the 8 rotations and flips; a run that was calibrated with it always does.
        cohort: where the run's cohort is, if it has moved.
        progress: is told (done, of) steps.

    Raises:
        RunError: `run` is not a finished run.
        ExportError: the format cannot be had here, `out` exists, the conversion failed, or what was written is not
            the run. Nothing is left then.
        StorageError: the disk refused.
    """
    folder, tell = Path(run), progress or (lambda *_: None)
    chosen = checked_format(to, precision)
    settings = read_settings(folder)
    target = Path(out) if out else default_folder(folder, to, precision, d4=d4 or settings["d4"])
    if target.exists():
        raise ExportError(f"{target} is already there. Delete it, or name another folder with --out.")
    from ductal.export import contract, convert, parity, sample
    from ductal.export.graph import load_run
    from ductal.export.reference import reference_of

    record = _record(folder)
    tell(0, STEPS)
    patches = sample.take_sample(folder, record, Path(cohort) if cohort else None, precision)
    loaded = load_run(folder, d4=d4)
    tell(1, STEPS)
    reference = reference_of(loaded, patches.patches)
    told = contract.about(folder, loaded, record)
    tell(2, STEPS)
    with atomic_folder(target) as temporary:
        convert.write(to, chosen, convert.Order(loaded, precision, told, patches.calibration), temporary)
        tell(3, STEPS)
        found, speed = parity.run_exported(to, chosen, temporary, precision, patches.patches)
        compared = parity.compare(
            reference, found, precision, threshold=loaded.threshold, labels=patches.labels
        )
        tell(4, STEPS)
        said = contract.contract(told, to, chosen, precision, temporary, compared, patches, speed)
        (temporary / contract.CONTRACT).write_text(to_json(said), encoding="utf-8")
    tell(STEPS, STEPS)
    return Exported(target, said)


def _record(folder: Path) -> dict[str, Any]:
    """`run.json`, which a model that came without one does not have."""
    try:
        return read_json(folder / "run.json")
    except (OSError, ValueError):
        return {}
