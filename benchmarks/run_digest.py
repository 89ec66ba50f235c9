"""What two trainings must agree in, bit for bit, if one is the other repeated or continued.

    python benchmarks/run_digest.py RUN [RUN ...]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import pandas as pd

CLOCK = ["seconds", "images_per_second"]  # columns of history.csv that a clock makes


def digest_of(run: Path) -> dict[str, str]:
    """SHA-256 of weights, history without the clock, validation predictions and calibration of a run folder."""
    history = pd.read_csv(run / "history.csv", dtype=str).drop(columns=CLOCK)
    predictions = pd.read_parquet(run / "predictions" / "val.parquet")
    contents = {
        "weights": _weights(run / "model.keras"),
        "history": history.to_csv(index=False).encode(),
        "predictions": predictions["prob"].to_numpy().tobytes() + "".join(predictions["patch_id"]).encode(),
        "calibration": (run / "calibration.json").read_bytes(),
    }
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _weights(model: Path) -> bytes:
    """Every array of a `.keras` file with its name, in the order of the names."""
    with zipfile.ZipFile(model) as archive:
        stored = archive.read("model.weights.h5")
    found: list[bytes] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(name.encode() + item[()].tobytes())

    with h5py.File(io.BytesIO(stored)) as file:
        file.visititems(visit)
    return b"".join(sorted(found))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    print(json.dumps({str(run): digest_of(run) for run in parser.parse_args().runs}, indent=1))


if __name__ == "__main__":
    main()
