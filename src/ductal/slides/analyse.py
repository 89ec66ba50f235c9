"""`ductal slide`: a scanned slide, or a folder of them, to a folder of results each."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ductal
from ductal.context.model import FILE, TRACK, ContextModel
from ductal.errors import DataError, RunError
from ductal.files import atomic_folder
from ductal.inference.engines import EngineName
from ductal.inference.predictor import Predictor, read_settings
from ductal.loading.records import read_json
from ductal.record import package_versions
from ductal.slides.identity import identity_of, pseudonym_of, run_identity, slide_fingerprint
from ductal.slides.judging import Progress, Refine, judge, unchanged
from ductal.slides.outputs import SUMMARY, measure, write_folder
from ductal.slides.reader import open_slide
from ductal.slides.sources import PLAUSIBLE_UM
from ductal.slides.tiling import Tiling
from ductal.slides.tissue import Gate

# The archive's patches come from x40 scans at about x2.5, so about 4 um a pixel; nobody has stated it exactly.
MODEL_SPACING_UM = 4.0
PATCH_ONLY = "patch-only"
TOO_COARSE = 1.5  # times the model's spacing: what the network learned to see is not in the file
OVERVIEW_PX = 2000
FEW_JUDGED = 0.5  # of the tissue's area


@dataclass(frozen=True)
class SlideResult:
    """A finished slide.

    Attributes:
        folder: with all files.
        summary: the content of its summary.json.
        reused: whether an earlier result of the same slide, run and settings was found.
    """

    folder: Path
    summary: dict[str, Any]
    reused: bool


class SlideAnalyser:
    """A run, loaded once, for any number of slides.

    Args:
        run: a finished run folder.
        model_mpp: um per pixel of the patches it was trained on; by default what the run says, else 4.0.
        threshold: probability at and above which a tile is tumour; the run's own by default.
        d4: average over the 8 rotations and flips of each tile.
        engine: see `Predictor.from_run`.
        context: refine calls by their neighbours with the run's `context.json`, which has a threshold of its own;
            None does so where the run has one. Results of the two tracks are never compared.
        pseudonyms: call slides by a digest instead of their file's name, which may name a patient.

    Raises:
        RunError: not a finished run, or no usable context where it is asked for.
        DataError: a setting is out of range.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        model_mpp: float | None = None,
        threshold: float | None = None,
        d4: bool = False,
        engine: EngineName = "auto",
        context: bool | None = None,
        pseudonyms: bool = False,
    ) -> None:
        folder = Path(run)
        calibrated = read_settings(folder)
        if context is None:
            context = (folder / FILE).is_file()
        self.context = ContextModel.of_run(folder, d4=d4 or calibrated["d4"]) if context else None
        self.refine: Refine = self.context.refine if self.context else unchanged
        self.track = TRACK if self.context else PATCH_ONLY
        stated = _spacing_of(folder)
        self.spacing_um = next(um for um in (model_mpp, stated, MODEL_SPACING_UM) if um is not None)
        self.spacing_assumed = model_mpp is None and stated is None
        own = self.context.threshold if self.context else calibrated["threshold"]
        self.threshold = own if threshold is None else threshold
        if not PLAUSIBLE_UM[0] <= self.spacing_um <= PLAUSIBLE_UM[1]:
            raise DataError(f"The model's spacing must be 0.05 to 20 um per pixel. Received: {self.spacing_um}")
        if not 0.0 <= self.threshold <= 1.0:
            raise DataError(f"A threshold is a probability, 0 to 1. Received: {self.threshold}")
        self.run = run_identity(folder)
        self._folder, self._d4, self._engine, self.pseudonyms = folder, d4, engine, pseudonyms
        self._predictor: Predictor | None = None

    @property
    def folder(self) -> Path:
        """Of the run, as a whole path."""
        return self._folder.absolute()

    def unloaded(self) -> SlideAnalyser:
        """The same without its network and with whole paths: what is sent to other machines."""
        other = copy.copy(self)
        other._folder, other._predictor = self.folder, None
        return other

    @property
    def predictor(self) -> Predictor:
        """Loaded when the first slide needs it."""
        if self._predictor is None:
            self._predictor = Predictor.from_run(self._folder, d4=self._d4, engine=self._engine)
        return self._predictor

    @property
    def settings(self) -> dict[str, Any]:
        """What, besides slide and run, determines a result."""
        return {
            "model_mpp": self.spacing_um, "threshold": self.threshold, "d4": self._d4, "engine": self._engine,
            "track": self.track, "context": self.context and self.context.numbers(),
        } | ({"pseudonyms": True} if self.pseudonyms else {})  # fmt: skip

    def analyse(
        self,
        path: str | Path,
        folder: str | Path,
        *,
        mpp: float | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> SlideResult:
        """Analyse one slide into `folder`, whole or not at all; see `analyse_slide`."""
        path, folder = Path(path), Path(folder)
        if mpp is not None and not PLAUSIBLE_UM[0] <= mpp <= PLAUSIBLE_UM[1]:
            raise DataError(f"A slide's spacing must be 0.05 to 20 um per pixel. Received: {mpp}")
        with open_slide(path, mpp) as slide:
            if slide.mpp > TOO_COARSE * self.spacing_um:
                raise DataError(
                    f"{path} has {slide.mpp:.3g} um per pixel, the model was trained at {self.spacing_um:.3g}: "
                    "what it looks at is not in this image. Use a finer scan."
                )
            fingerprint = slide_fingerprint(path)
            slide.name = pseudonym_of(path) if self.pseudonyms else slide.name
            parts = {"slide": fingerprint, "mpp": slide.mpp, "run": self.run, "settings": self.settings}
            identity = identity_of(parts)
            earlier = _earlier(folder)
            if earlier is not None and earlier.get("identity") == identity and not overwrite:
                return SlideResult(folder, earlier, reused=True)
            with atomic_folder(folder) as temporary:
                tiling = Tiling(slide, self.spacing_um)
                overview = slide.overview(OVERVIEW_PX)
                judged = judge(tiling, overview, self.predictor, refine=self.refine, progress=progress)
                found = measure(judged, tiling, self.threshold)
                summary = self._summary(tiling, found, mpp) | {"identity": identity}
                summary["slide"]["fingerprint"] = fingerprint
                write_folder(temporary, judged, tiling, overview, summary)
                summary = json.loads((temporary / SUMMARY).read_text(encoding="utf-8"))
        return SlideResult(folder, summary, reused=False)

    def _summary(self, tiling: Tiling, found: dict[str, Any], mpp: float | None) -> dict[str, Any]:
        slide = tiling.slide
        width, height = slide.size
        return {
            "what": "Regions of invasive ductal carcinoma found by a network. Research use only, no diagnosis.",
            "slide": {"name": slide.name, "format": slide.vendor, "width_px": width, "height_px": height},
            "found": found,
            "threshold": self.threshold,
            "flags": self._flags(tiling, found, mpp),
            "track": self.track,
            "spacing": {
                "slide_um": slide.mpp,
                "from": "file" if slide.mpp_in_file else "user",
                "model_um": self.spacing_um,
                "read_from_um": slide.mpp * slide.source.downsamples[tiling.level],
                "tile_um": tiling.tile_um,
                "tile_px": tiling.side_px,
            },
            "run": self.run,
            "engine": {"name": self.predictor.engine.name, "d4": self.predictor.d4},
            "settings": self.settings,
            "versions": {"ductal": ductal.__version__} | package_versions("numpy", "pillow", "tifffile"),
        }

    def _flags(self, tiling: Tiling, found: dict[str, Any], mpp: float | None) -> list[dict[str, str]]:
        """What a reader of the result should know, as code and sentence."""
        slide = tiling.slide
        flags = []
        if self.spacing_assumed:
            text = f"the model's spacing is taken as {self.spacing_um:g} um per pixel, which is unverified"
            flags.append(("model_spacing_assumed", text))
        if slide.mpp_in_file is None:
            flags.append(("spacing_given", "the slide's spacing is the user's, not the file's"))
        elif mpp is not None and abs(mpp / slide.mpp - 1) > 0.02:
            text = f"the file says {slide.mpp:.4g} um per pixel, which was used, not {mpp:g}"
            flags.append(("spacing_in_file", text))
        if slide.mpp > self.spacing_um * 1.05:
            flags.append(("enlarged", "the slide is coarser than the model's spacing and was enlarged"))
        if len(slide.source.sizes) == 1 and tiling.spacing_um > 2 * slide.mpp:
            flags.append(("no_pyramid", "the file has one resolution only, so all of its pixels had to be read"))
        if found["judged_tissue_mm2"] < FEW_JUDGED * found["tissue_area_mm2"]:
            flags.append(("mostly_gated", "more than half of the tissue was not judged (folds, focus)"))
        if found["tiles"][Gate.pen.name]:
            flags.append(("pen", "there is ink, or blood that looks like red ink, on the slide"))
        return [{"code": code, "text": text} for code, text in flags]


def analyse_slide(
    run: str | Path,
    path: str | Path,
    out: str | Path,
    *,
    mpp: float | None = None,
    model_mpp: float | None = None,
    threshold: float | None = None,
    d4: bool = False,
    engine: EngineName = "auto",
    overwrite: bool = False,
    context: bool | None = None,
    progress: Progress | None = None,
) -> SlideResult:
    """Find invasive ductal carcinoma on a scanned slide, and write a folder that shows and explains it.

    Example:
        >>> result = ductal.analyse_slide("runs/vgg16-full", "scan.svs", "scan")  # doctest: +SKIP
        >>> result.summary["found"]["tumour_area_mm2"]  # doctest: +SKIP

    Args:
        run: a finished run folder.
        path: SVS, NDPI, MRXS, TIFF, DICOM or another format of OpenSlide, or a PNG or JPEG region.
        out: the folder to write, replaced when it holds an earlier result.
        mpp: um per pixel of the slide where its file does not say; where it does, the file is right.
        overwrite: compute although the same slide, run and settings have a result there.
        progress: called with (tiles done, tiles in all).
        model_mpp, threshold, d4, engine, context: see `SlideAnalyser`.

    Raises:
        DataError: not a slide, damaged, no spacing, too coarse, no tissue; or `out` holds something else.
        RunError: `run` is not a finished run.
        StorageError: the disk refused; nothing half-written stays.
    """
    analyser = SlideAnalyser(
        run, model_mpp=model_mpp, threshold=threshold, d4=d4, engine=engine, context=context
    )
    return analyser.analyse(path, out, mpp=mpp, overwrite=overwrite, progress=progress)


def _earlier(folder: Path) -> dict[str, Any] | None:
    """The summary of a result in `folder`, None where there is nothing. Raises DataError for anything else there."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        summary = read_json(folder / SUMMARY)
        if "identity" in summary and "found" in summary:
            return dict(summary)
    except (OSError, ValueError, TypeError):
        pass
    raise DataError(f"{folder} exists and is no result of ductal slide, so it is not replaced. Choose another --out.")


def _spacing_of(run_folder: Path) -> float | None:
    try:
        value = read_json(run_folder / "calibration.json").get("spacing_um")
        return None if value is None else float(value)
    except (OSError, ValueError, TypeError) as error:
        path = run_folder / "calibration.json"
        raise RunError(f"{path} cannot be read ({error!r}). Train the recipe again.") from error
