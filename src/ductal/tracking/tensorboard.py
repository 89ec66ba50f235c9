"""Files for TensorBoard, written without it: TFRecords of TensorFlow's Event messages."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoard:
    """Curves and settings of one run, in `folder`, which `tensorboard --logdir` of its parent shows.

    A training that begins anew replaces what is there; one that goes on adds a file.
    """

    name = "tensorboard"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def begin(self, title: str, params: Mapping[str, str], *, resumed: bool) -> None:
        """See `Tracker.begin`. Raises OSError."""
        import tensorflow as tf

        if not resumed:
            shutil.rmtree(self._folder, ignore_errors=True)
        table = [f"**{title}**", "", "| setting | value |", "|---|---|"]
        table += [f"| {key} | {value} |" for key, value in params.items()]
        about = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "text"})
        text = tf.make_tensor_proto(["\n".join(table)])
        self._write(0, [{"tag": "settings", "metadata": about, "tensor": text}])

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See `Tracker.log`."""
        self._write(step, [{"tag": _tag(key), "simple_value": value} for key, value in figures.items()])

    def close(self, outcome: str) -> None:  # noqa: ARG002
        """See `Tracker.close`."""
        if self._writer is not None:
            self._writer.close()

    def record(self) -> str:
        """See `Tracker.record`."""
        return self._folder.name

    def _write(self, step: int, values: list[dict[str, Any]]) -> None:
        import tensorflow as tf

        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = tf.io.TFRecordWriter(str(self._folder / f"events.out.tfevents.{time.time_ns()}.ductal"))
            first = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
            self._writer.write(first.SerializeToString())
        summary = tf.compat.v1.Summary(value=[tf.compat.v1.Summary.Value(**value) for value in values])
        event = tf.compat.v1.Event(wall_time=time.time(), step=step, summary=summary)
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def _tag(key: str) -> str:
    """Training and validation as groups of TensorBoard: val_auc is val/auc."""
    for group in ("final_val", "final_test", "val"):
        if key.startswith(f"{group}_"):
            return f"{group}/{key.removeprefix(group + '_')}"
    return f"training/{key}"
