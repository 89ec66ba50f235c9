"""Slides and regions over HTTP: found, fetched, stopped, and gone from the disk."""

from __future__ import annotations

import io
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_patches_api import bomb
from web_server import Server, png, problem, tissue

ROWS, COLUMNS = 5, 6
DARK = {(2, 1), (3, 1), (2, 2), (3, 2)}  # (column, row)


def region() -> np.ndarray:
    """Glass, pale tissue of 4 x 3 tiles, and a square of dark tissue in it, at 4 um a pixel."""
    pixels = np.full((ROWS * 50, COLUMNS * 50, 3), 243, np.uint8)
    for row in range(1, 4):
        for column in range(1, 5):
            tile = tissue(1.5 if (column, row) in DARK else 0.4, seed=10 * row + column)
            pixels[row * 50 : row * 50 + 50, column * 50 : column * 50 + 50] = tile
    return pixels


@pytest.fixture(scope="module")
def job(server: Server) -> dict:
    response = server.post("slides", png(region()), "Frau Muster.png")
    assert response.status_code == 202, response.text
    submitted = response.json()
    assert response.headers["location"] == f"/api/v1/slides/{submitted['id']}"
    return server.finished(submitted)


def fetch(server: Server, job: dict, name: str, **query: float) -> bytes:
    response = server.client.get(job["results"][name], params=query)
    assert response.status_code == 200, response.text
    return response.content


def test_the_summary(job: dict) -> None:
    assert job["status"] == "done", job
    assert job["name"] == "Frau Muster.png"
    summary = job["summary"]
    assert summary["tumour_tiles"] == 4
    assert summary["tumour_area_mm2"] == pytest.approx(4 * 0.04)
    assert summary["tiles"]["tissue"] == 12
    assert (summary["mpp"], summary["mpp_from"], summary["regions"]) == (4.0, "model", 1)
    assert "spacing_assumed" in [note["code"] for note in job["warnings"]]


def test_the_grid_is_what_the_page_draws(server: Server, job: dict) -> None:
    grid = json.loads(fetch(server, job, "grid.json"))
    values = [np.nan if one is None else one for one in grid["probabilities"]]
    probs = np.array(values).reshape(grid["rows"], grid["columns"])
    assert probs.shape == (ROWS, COLUMNS)
    assert {(c, r) for r, c in np.argwhere(probs >= 0.5).tolist()} == DARK
    assert np.isnan(probs).sum() == ROWS * COLUMNS - 12
    assert (np.nan_to_num(probs, nan=-1) >= 0.5).sum() * grid["tile_mm2"] == pytest.approx(0.16)
    assert grid["extent"] == {"x0": 0, "y0": 0, "x1": COLUMNS * 50, "y1": ROWS * 50}
    assert (grid["last_column_share"], grid["last_row_share"]) == (1.0, 1.0)
    assert [grid["gate_names"][gate] for gate in grid["gates"]].count("glass") == 18
    thumbnail = Image.open(io.BytesIO(fetch(server, job, "thumbnail.png")))
    assert thumbnail.size == (grid["thumbnail"]["width"], grid["thumbnail"]["height"])
    np.testing.assert_array_equal(np.asarray(thumbnail), region())


def test_the_files(server: Server, job: dict) -> None:
    assert Image.open(io.BytesIO(fetch(server, job, "heatmap.png"))).width > 500
    table = fetch(server, job, "probabilities.csv").decode().splitlines()
    assert len(table) == 13
    assert json.loads(fetch(server, job, "summary.json"))["found"]["tumour_tiles"] == 4
    (feature,) = json.loads(fetch(server, job, "regions.geojson"))["features"]
    assert feature["properties"]["measurements"]["tiles"] == 4


def test_regions_at_another_threshold(server: Server, job: dict) -> None:
    def tiles(threshold: float) -> list[int]:
        found = json.loads(fetch(server, job, "regions.geojson", threshold=threshold))
        return [feature["properties"]["measurements"]["tiles"] for feature in found["features"]]

    assert tiles(0.0) == [12]
    assert tiles(0.5) == [4]
    assert tiles(1.0) == []
    same = json.loads(fetch(server, job, "regions.geojson"))["features"][0]["geometry"]
    assert json.loads(fetch(server, job, "regions.geojson", threshold=0.5))["features"][0]["geometry"] == same
    response = server.client.get(job["results"]["regions.geojson"], params={"threshold": "2"})
    assert problem(response) == "invalid"


def test_the_upload_is_gone_and_deleting_takes_the_rest(server: Server, job: dict) -> None:
    assert not [name for name in server.files() if Path(name).name.startswith("image.")]
    other = server.finished(server.post("slides", png(region())).json())
    assert any(other["id"] in name for name in server.files())
    assert server.client.delete(f"/api/v1/slides/{other['id']}").status_code == 204
    assert not any(other["id"] in name for name in server.files())
    assert problem(server.client.get(f"/api/v1/slides/{other['id']}")) == "not_found"
    assert problem(server.client.get(other["results"]["grid.json"])) == "not_found"
    assert server.client.get(f"/api/v1/slides/{job['id']}").json()["status"] == "done"


@pytest.mark.parametrize("path", ["model.keras", "..%2F..%2Fimage.png", "tiles.parquet", "summary.json%00"])
def test_only_results_can_be_fetched(path: str, server: Server, job: dict) -> None:
    response = server.client.get(f"/api/v1/slides/{job['id']}/results/{path}")
    assert problem(response) in ("invalid", "not_found")


@pytest.mark.parametrize("content", [b"", b"%PDF-1.7", b"<svg/>", b"\x00" * 100])
def test_what_is_no_image_is_refused_at_once(content: bytes, server: Server) -> None:
    assert problem(server.post("slides", content)) == "unsupported_format"


FAILING = {
    "truncated": (png(region())[:20_000], "not_usable"),
    "bomb": (bomb(60_000, 60_000), "too_many_pixels"),
    "short bomb": (bomb(9_000, 9_000), "not_usable"),
    "grey": (png(region()[..., 0]), "not_usable"),
    "glass": (png(np.full((100, 100, 3), 243, np.uint8)), "not_usable"),
    "header": (b"\x89PNG\r\n\x1a\n", "damaged"),
}


def test_hostile_images_fail_alone(server: Server) -> None:
    jobs = {name: server.post("slides", content, "x.png").json() for name, (content, _) in FAILING.items()}
    for name, (_, code) in FAILING.items():
        ended = server.finished(jobs[name])
        assert (ended["status"], ended["problem"]["code"]) == ("failed", code), (name, ended)
        assert server.temporary.name not in json.dumps(ended)
        assert "--mpp" not in json.dumps(ended)
        server.client.delete(f"/api/v1/slides/{ended['id']}")
    assert server.client.get("/api/v1/ready").status_code == 200


@pytest.mark.parametrize(
    "fields", [{"mpp": "0"}, {"mpp": "nan"}, {"mpp": "inf"}, {"threshold": "1.5"}, {"mpp": "x"}, {"context": "maybe"}]
)
def test_wrong_fields(fields: dict[str, str], server: Server) -> None:
    assert problem(server.post("slides", png(region()), **fields)) == "invalid"


def test_context_must_be_there(server: Server) -> None:
    assert "context.json" in server.post("slides", png(region()), context="true").json()["detail"]


def test_a_coarse_image_is_refused(server: Server) -> None:
    ended = server.finished(server.post("slides", png(region()), mpp="8").json())
    assert ended["problem"]["code"] == "not_usable"
    assert "finer scan" in ended["problem"]["detail"]


def slow() -> bytes:
    """A region that takes seconds."""
    return png(np.tile(region(), (16, 16, 1)), "JPEG")


def children(server: Server) -> list[int]:
    threads = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    found = [child for thread in threads for child in thread.read_text().split()]
    names = {child: Path(f"/proc/{child}/cmdline").read_text() for child in found}
    return [int(child) for child, command in names.items() if "resource_tracker" not in command]


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What a condition gives, once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_running_job_is_really_stopped_and_the_next_runs(run: Path) -> None:
    with Server(run) as server:
        first, second = server.post("slides", slow()).json(), server.post("slides", png(region())).json()
        assert second["position"] in (0, 1)
        until(lambda: server.client.get(f"/api/v1/slides/{first['id']}").json()["progress"])
        assert problem(server.client.get(f"/api/v1/slides/{first['id']}/results/grid.json")) == "not_finished"
        (child,) = children(server)
        assert server.client.delete(f"/api/v1/slides/{first['id']}").status_code == 204
        assert not Path(f"/proc/{child}").exists()
        assert not any(first["id"] in name for name in server.files())
        assert server.finished(second)["status"] == "done"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_server_takes_jobs_and_files_along(how: signal.Signals, run: Path) -> None:
    with Server(run) as server:
        job = server.post("slides", slow()).json()
        until(lambda: server.client.get(f"/api/v1/slides/{job['id']}").json()["status"] == "running")
        time.sleep(0.3)
        (child,) = children(server)
        assert server.files()
        server.process.send_signal(how)
        code = server.process.wait(20)
        assert code == (0 if how == signal.SIGINT else -signal.SIGTERM)
        assert server.files() == []
        assert not Path(f"/proc/{child}").exists()
        assert "Traceback" not in "".join(server.log)


def test_what_a_killed_server_left_is_swept_by_the_next_and_others_keep_theirs(run: Path, server: Server) -> None:
    shared = server.temporary.name
    before = set(server.files())
    with Server(run, TMPDIR=shared) as killed:  # a second one at the same time
        job = killed.post("slides", slow(), "patient.png").json()
        (child,) = until(lambda: children(killed))
        killed.process.kill()
        killed.process.wait()
    assert any(job["id"] in name for name in server.files())
    with Server(run, TMPDIR=shared):
        assert not any(job["id"] in name for name in server.files())
        assert before <= set(server.files())
        assert server.post("predict", png(tissue(1.5))).status_code == 200
    until(lambda: not Path(f"/proc/{child}").exists())  # it has nobody to tell what it finds
