"""One slide, analysed in a process of its own: it can be stopped at any moment, and a crash costs one job.

It runs below the server in priority, gives way first where memory is short, and cannot take more than a share of it.
"""

from __future__ import annotations

import json
import os
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ductal.data.workers import start_worker
from ductal.errors import DuctalError

THUMBNAIL, TABLE, GRID = "thumbnail.png", "probabilities.csv", "grid.json"
UPLOAD = "image"  # the name of an uploaded file, with an ending by its content
THUMBNAIL_PX = 1600
MOST_TILES = 1_000_000
MOST_MESSAGE_BYTES = 16 << 20
MEMORY_BYTES = 4 << 30  # beyond what the loaded model takes
_NICE = 5


@dataclass(frozen=True)
class Task:
    """What a child is given.

    Attributes:
        run_folder: a finished run.
        image: the uploaded file.
        out: folder to write the results to.
        mpp: um per pixel, where the client says.
        threshold, context, d4, engine: see `SlideAnalyser`.
        most_pixels: of an image that must be decoded whole.
    """

    run_folder: Path
    image: Path
    out: Path
    mpp: float | None
    threshold: float | None
    context: bool | None
    d4: bool
    engine: Any
    most_pixels: int


class Refused(Exception):  # noqa: N818 - an answer to the client, not a mistake of the program
    """The image cannot be analysed: code and detail of a problem."""


def analyse_in_child(sender: Connection, task: Task) -> None:
    """Entry point of the process; tells ("progress", done, total), and at last "done", "refused" or "crashed"."""
    start_worker()
    os.nice(_NICE)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write what they think of a hostile file
    _give_way_first()
    try:
        _tell(sender, "done", *_work(task, sender))
    except Refused as refusal:
        _tell(sender, "refused", *refusal.args)
    except DuctalError as error:
        _tell(sender, "refused", "not_usable", str(error).replace(str(task.image), "The image"))
    except MemoryError:
        _tell(sender, "refused", "too_many_pixels", "The image needs more memory than a job may take.")
    except Exception:
        _tell(sender, "crashed", traceback.format_exc())


def _tell(sender: Connection, *message: Any) -> None:
    sender.send_bytes(json.dumps(message).encode())


def told(receiver: Connection) -> tuple[Any, ...]:
    """The next message of a child, which a hostile image may have taken over: nothing but JSON of the known forms.

    Raises:
        EOFError: the child has ended. OSError, ValueError: what it says is no message.
    """
    kinds = {"progress": [int, int], "done": [dict, list], "refused": [str, str], "crashed": [str]}
    content = receiver.recv_bytes(MOST_MESSAGE_BYTES)
    try:
        message = json.loads(content)
    except RecursionError as error:
        raise ValueError("a child's message is nested too deeply") from error
    kind, *parts = message if isinstance(message, list) and message else [None]
    if not isinstance(kind, str) or kinds.get(kind) != [type(part) for part in parts]:
        raise ValueError(f"a child said {message!r:.200}")
    return (kind, *parts)


def _work(task: Task, sender: Connection) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Write the results; returns the summary and warnings."""
    from ductal.slides.analyse import SlideAnalyser
    from ductal.slides.reader import open_slide
    from ductal.slides.tiling import Tiling

    analyser = SlideAnalyser(
        task.run_folder, threshold=task.threshold, d4=task.d4, engine=task.engine, context=task.context
    )
    assert analyser.predictor  # loaded before the memory is limited
    _limit_memory()
    plain = check_plain(task.image, task.most_pixels)
    with open_slide(task.image, task.mpp or analyser.spacing_um) as slide:
        mpp, assumed = task.mpp, False
        if slide.mpp_in_file is None and mpp is None:
            if not plain:
                raise Refused("spacing_needed", "The slide does not say how large its pixels are. Give mpp, the um "
                              "per pixel: about 0.25 for a scan at x40, 0.5 at x20.")  # fmt: skip
            mpp, assumed = analyser.spacing_um, True
        tiling = Tiling(slide, analyser.spacing_um)
        if tiling.shape[0] * tiling.shape[1] > MOST_TILES:
            raise Refused("too_many_pixels", f"The image is {slide.size[0]:,} x {slide.size[1]:,} px at "
                          f"{slide.mpp:.3g} um, more than {MOST_TILES:,} tiles. Cut it, or check mpp.")  # fmt: skip
        overview = slide.overview(THUMBNAIL_PX)
    result = analyser.analyse(
        task.image, task.out, mpp=mpp, progress=lambda done, total: _tell(sender, "progress", int(done), int(total))
    )
    _write_extras(task.out, overview, tiling, result.summary)
    return result.summary, _warnings(result.summary, assumed)


def check_plain(path: Path, most_pixels: int) -> bool:
    """Whether Pillow, not OpenSlide, reads an image; then its size is checked on the header, before it is decoded.

    Raises:
        Refused: "too_many_pixels" or "damaged".
    """
    from PIL import Image

    from ductal.slides.sources import is_plain

    if not is_plain(path):
        return False
    Image.MAX_IMAGE_PIXELS = None  # ours below instead
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
            width, height = image.size
    except Exception as error:  # Pillow raises almost any type on damaged bytes
        raise Refused(
            "damaged", f"The image cannot be read ({type(error).__name__}). It may be cut short; copy it again."
        ) from error
    if width * height > most_pixels:
        raise Refused(
            "too_many_pixels",
            f"The image is {width:,} x {height:,} px; without tiles it may have {most_pixels:,} pixels. Cut it, or "
            "convert it to a tiled pyramidal TIFF.",
        )
    return True


def _write_extras(out: Path, overview: Any, tiling: Any, summary: dict[str, Any]) -> None:
    """The thumbnail, the grid for the page, and the table under the name that the API gives it."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    from ductal.slides.tissue import Gate

    Image.fromarray(overview).save(out / THUMBNAIL)
    table = pd.read_parquet(out / "tiles.parquet")
    side, mpp, size = tiling.side_px, tiling.slide.mpp, tiling.slide.size
    rows, columns = tiling.shape
    probs = np.full((rows, columns), np.nan)
    gates = np.full((rows, columns), int(Gate.glass))
    probs[table["row"], table["column"]] = table["probability"]
    gates[table["row"], table["column"]] = [int(Gate[name]) for name in table["gate"]]
    across, down = overview.shape[1] / size[0], overview.shape[0] / size[1]
    grid = {
        "columns": columns, "rows": rows, "tile_px": side, "mpp": mpp, "tile_mm2": (side * mpp / 1000.0) ** 2,
        "last_column_share": size[0] / side - (columns - 1), "last_row_share": size[1] / side - (rows - 1),
        "width_px": size[0], "height_px": size[1], "threshold": summary["threshold"],
        "thumbnail": {"width": overview.shape[1], "height": overview.shape[0]},
        "extent": {"x0": 0.0, "y0": 0.0, "x1": columns * side * across, "y1": rows * side * down},
        "probabilities": [None if np.isnan(one) else round(one, 5) for one in probs.ravel().tolist()],
        "gates": gates.ravel().tolist(), "gate_names": [gate.name for gate in Gate],
    }  # fmt: skip
    (out / GRID).write_text(json.dumps(grid, allow_nan=False), encoding="utf-8")
    (out / "tiles.csv").rename(out / TABLE)
    for name in ("tiles.parquet", "README.txt"):
        (out / name).unlink()


def _warnings(summary: dict[str, Any], assumed: bool) -> list[dict[str, str]]:
    """What a reader should know; a spacing that we assumed was not the user's."""
    flags = [dict(flag) for flag in summary["flags"]]
    if not assumed:
        return flags
    text = (
        "the image does not say how large its pixels are, so they were taken for the "
        f"{summary['spacing']['model_um']:g} um of the model; at another scale the result means nothing"
    )
    kept = [flag for flag in flags if flag["code"] != "spacing_given"]
    return [{"code": "spacing_assumed", "text": text}, *kept]


def _limit_memory() -> None:
    """A file that needs more, for a single tile of a gigapixel for instance, ends its own job only."""
    import resource

    with suppress(OSError):  # not Linux
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _give_way_first() -> None:
    with suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
