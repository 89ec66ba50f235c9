"""Slides and regions: submit, ask how far it is, fetch what was found, delete."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from pydantic import BaseModel, Field
from starlette.responses import Response

from ductal.slides.outputs import REGIONS
from ductal.slides.sources import PLAUSIBLE_UM
from ductal.web.job_child import UPLOAD, Task
from ductal.web.jobs import RESULTS as FOLDER
from ductal.web.jobs import Job, Jobs
from ductal.web.problems import ApiError, Problem, Responses, documented
from ductal.web.schemas import Note
from ductal.web.service import Service, loaded
from ductal.web.slide_results import GEOJSON, RESULTS, regions_at
from ductal.web.uploads import shown_name

TheService = Annotated[Service, Depends(loaded)]
PATH = "/api/v1/slides"
ResultName = Literal[
    "thumbnail.png", "heatmap.png", "probabilities.csv", "regions.geojson", "summary.json", "grid.json"
]
Mpp = Annotated[
    float | None,
    Form(ge=PLAUSIBLE_UM[0], le=PLAUSIBLE_UM[1], allow_inf_nan=False, description="um per pixel, where the file does "
         "not say; by default that of the model for PNG, JPEG and plain TIFF"),
]  # fmt: skip
Threshold = Annotated[float | None, Form(ge=0, le=1, allow_inf_nan=False, description="instead of the run's own")]
Context = Annotated[
    bool | None, Form(description="refine calls by their neighbours; by default where the run has a context")
]
# First bytes of a file, and the ending it gets.
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"II*\0", ".tif"), (b"MM\0*", ".tif"),
    (b"II+\0", ".tif"), (b"MM\0+", ".tif"),
)  # fmt: skip


class Progress(BaseModel):
    """Tiles done and in all."""

    done: int
    total: int
    eta_seconds: float | None


class SlideSummary(BaseModel):
    """What was found; the whole of it is in summary.json."""

    tumour_area_mm2: float
    tissue_area_mm2: float
    judged_tissue_mm2: float
    tumour_share_of_tissue: float
    mean_probability: float
    mean_confidence: float
    tumour_tiles: int
    tiles: dict[str, int]
    threshold: float
    track: str
    width_px: int
    height_px: int
    mpp: float
    mpp_from: Literal["file", "user", "model"]
    model_mpp: float
    tile_um: float
    regions: int


class JobInfo(BaseModel):
    """A slide on its way."""

    id: str
    name: str
    status: Literal["queued", "running", "done", "failed"]
    progress: Progress | None
    position: int | None = Field(description="how many wait before it")
    problem: Problem | None
    summary: SlideSummary | None
    results: dict[str, str] | None = Field(description="address of each result by its name")
    warnings: list[Note]


async def the_jobs(request: Request) -> Jobs:
    """The server's jobs, as a dependency of routes."""
    jobs: Jobs = request.app.state.jobs
    return jobs


TheJobs = Annotated[Jobs, Depends(the_jobs)]
_ACCEPTED: Responses = {
    202: {"headers": {"Location": {"schema": {"type": "string"}, "description": "address of the job"}}}
}
_FILE: Responses = {200: {"content": {kind: {} for kind in sorted(set(RESULTS.values()))}}}
router = APIRouter(prefix=PATH, tags=["slides"])


@router.post(
    "", status_code=202, form_limits={"max_files": 1, "max_fields": 8, "max_part_size": 4096},
    responses=_ACCEPTED | documented("unsupported_format", "invalid", "busy", "not_ready", "no_space"),
)  # fmt: skip
async def submit(
    service: TheService,
    jobs: TheJobs,
    response: Response,
    file: Annotated[UploadFile, File(description="PNG, JPEG, TIFF, or a scan in one file: SVS, NDPI, SCN, BIF.")],
    mpp: Mpp = None,
    threshold: Threshold = None,
    context: Context = None,
) -> JobInfo:
    """Analyse a region or a slide; ask at the address in Location how far it is."""
    if context and not service.info.model.context:
        raise ApiError("invalid", "context: the run has no context.json. Leave it out, or fit one: ductal context.")
    ending = _ending(await file.read(16))
    jobs.check_room()
    folder = jobs.make_folder()
    try:
        await file.seek(0)
        image = folder / f"{UPLOAD}{ending}"
        await to_thread.run_sync(_copy, file.file, image)
        settings = service.settings
        task = Task(
            run_folder=service.run_folder, image=image, out=folder / FOLDER, mpp=mpp, threshold=threshold,
            context=context, d4=settings.d4, engine=settings.engine, most_pixels=settings.limits.slide_pixels,
        )  # fmt: skip
        job = jobs.submit(shown_name(file.filename), task)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    response.headers["Location"] = f"{PATH}/{job.id}"
    return _info(jobs, job)


@router.get("/{job_id}", responses=documented("not_found", "invalid"))
async def job_info(jobs: TheJobs, job_id: str) -> JobInfo:
    """How far a job is, and what it found."""
    return _info(jobs, jobs.get(job_id))


@router.delete("/{job_id}", status_code=204, responses=documented("not_found", "invalid"))
async def delete(jobs: TheJobs, job_id: str) -> None:
    """Stop a job and delete everything of it."""
    await jobs.delete(jobs.get(job_id))


@router.get(
    "/{job_id}/results/{name}", response_class=Response,
    responses=_FILE | documented("not_found", "not_finished", "invalid"),
)  # fmt: skip
async def result(
    jobs: TheJobs,
    job_id: str,
    name: ResultName,
    threshold: Annotated[
        float | None, Query(ge=0, le=1, allow_inf_nan=False, description="of regions.geojson: another threshold")
    ] = None,
) -> Response:
    """A file that a finished job has written."""
    job = jobs.get(job_id)
    if job.summary is None:
        raise ApiError("not_finished", f"The job is {job.status}, so there is no result. Ask for its status first.")
    if threshold is not None and name == REGIONS:
        content = await to_thread.run_sync(regions_at, job.results, threshold, job.summary["identity"])
        return Response(content, media_type=GEOJSON)
    return Response(await to_thread.run_sync(_content, job.results / name), media_type=RESULTS[name])


def _ending(start: bytes) -> str:
    for magic, ending in _MAGIC:
        if start.startswith(magic):
            return ending
    raise ApiError(
        "unsupported_format", "The file is no PNG, JPEG or TIFF image and no scan in a single TIFF file (SVS, NDPI, "
        "SCN, BIF). Its content decides, not its name.",
    )  # fmt: skip


def _copy(source: BinaryIO, target: Path) -> None:
    try:
        with target.open("xb") as handle:
            shutil.copyfileobj(source, handle, 1 << 20)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ApiError("no_space", "The server has no room for the file now. Try again later.") from error
        raise


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ApiError("not_found", "The job was deleted just now.") from None


def _info(jobs: Jobs, job: Job) -> JobInfo:
    progress = None
    if job.progress is not None and job.status == "running":
        done, total, seconds = job.progress
        left = round(seconds / done * (total - done), 1) if done else None
        progress = Progress(done=done, total=total, eta_seconds=left)
    results = None
    if job.summary is not None:
        results = {name: f"{PATH}/{job.id}/results/{name}" for name in RESULTS}
    return JobInfo(
        id=job.id, name=job.name, status=job.status, progress=progress, position=jobs.position(job),
        problem=job.problem, summary=_summary(job), results=results,
        warnings=[Note(**note) for note in job.warnings],
    )  # fmt: skip


def _summary(job: Job) -> SlideSummary | None:
    if job.summary is None:
        return None
    found: dict[str, Any] = job.summary["found"]
    slide, spacing = job.summary["slide"], job.summary["spacing"]
    assumed = any(note["code"] == "spacing_assumed" for note in job.warnings)
    return SlideSummary(
        **found, threshold=job.summary["threshold"], track=job.summary["track"], width_px=slide["width_px"],
        height_px=slide["height_px"], mpp=spacing["slide_um"], mpp_from="model" if assumed else spacing["from"],
        model_mpp=spacing["model_um"], tile_um=spacing["tile_um"], regions=job.summary["regions"],
    )  # fmt: skip
