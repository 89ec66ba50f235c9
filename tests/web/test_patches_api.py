"""Patches over HTTP: right answers, and for every hostile file an error that does not harm the next."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from web_server import Server, png, probability, problem, tissue

DARK, PALE = tissue(1.5), tissue(0.4)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width: int, height: int) -> bytes:
    """A PNG of some kilobytes that claims many pixels of one colour, and holds the first of its rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    held = min(height, 20_000_000 // (1 + width))
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(held)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_dark_patch_is_called_cancer(server: Server) -> None:
    response = server.post("predict", png(DARK), "a/b\\c.png")
    answer = response.json()
    assert response.status_code == 200
    assert answer["probability"] == pytest.approx(probability(DARK), abs=1e-3)
    assert answer["call"] == "cancer"
    assert answer["above_threshold"]
    assert answer["name"] == "c.png"
    assert answer["d4"] is None
    assert answer["abstain"] == {"low": 0.3, "high": 0.7}
    assert "at or above the threshold of 50 %" in answer["words"]


def test_views_of_a_mean_are_all_alike(server: Server) -> None:
    answer = server.post("predict?views=true", png(PALE)).json()
    assert answer["call"] == "not_cancer"
    np.testing.assert_allclose(answer["d4"]["views"], [answer["probability"]] * 8, atol=1e-4)
    assert answer["d4"]["agree"] == 8


def test_between_the_limits_no_call_is_made(server: Server) -> None:
    doubtful = np.clip(tissue(1.0) * 140.0 / tissue(1.0).mean(), 0, 255).astype(np.uint8)
    answer = server.post("predict", png(doubtful)).json()
    assert 0.3 < answer["probability"] < 0.7
    assert answer["call"] == "unsure"
    assert "at most 5 % of its calls" in answer["words"]


def test_a_blank_patch_is_answered_with_a_warning_and_without_a_call(server: Server) -> None:
    answer = server.post("predict", png(np.full((50, 50, 3), 243, np.uint8))).json()
    assert answer["call"] == "unsure"
    assert "blank" in [note["code"] for note in answer["warnings"]]


def test_many_patches_are_answered_in_order_and_a_bad_one_does_not_stop_them(server: Server) -> None:
    contents = [png(DARK), b"no image", png(PALE), png(np.zeros((60, 50, 3), np.uint8)), png(DARK)]
    files = [("files", (f"{number}.png", content)) for number, content in enumerate(contents)]
    answer = server.client.post("/api/v1/predict/batch", files=files).json()
    assert [one["name"] for one in answer["predictions"]] == [f"{number}.png" for number in range(5)]
    said = [one.get("call") or one["problem"]["code"] for one in answer["predictions"]]
    assert said == ["cancer", "unsupported_format", "not_cancer", "not_a_patch", "cancer"]
    assert answer["counts"] == {
        "files": 5, "cancer": 2, "not_cancer": 1, "unsure": 0, "failed": 2, "warned": 0,
    }  # fmt: skip


def test_a_batch_of_bad_files_only(server: Server) -> None:
    answer = server.client.post("/api/v1/predict/batch", files=[("files", ("a.png", b"x"))]).json()
    assert answer["counts"]["failed"] == 1


def test_the_explanation_shows_where_it_is_dark(server: Server) -> None:
    half = PALE.copy()
    half[:, 25:] = tissue(2.5)[:, 25:]
    response = server.post("explain", png(half))
    answer = response.json()
    assert response.status_code == 200, answer
    shown = Image.open(io.BytesIO(base64.b64decode(answer["map_png"])))
    opacity = np.asarray(shown)[..., 3].astype(float)
    assert shown.mode == "RGBA"
    assert shown.size == (answer["px"], answer["px"]) == (400, 400)
    assert opacity[:, 240:].mean() > 2 * opacity[:, :160].mean()
    assert answer["explains"] == answer["prediction"]["call"] == "cancer"
    assert answer["layer"] == "darkness"
    assert len(answer["prediction"]["d4"]["views"]) == 8


def modes() -> dict[str, bytes]:
    """Unusual images that are patches all the same."""
    palette = Image.fromarray(DARK).quantize(64)
    transparent = np.dstack([DARK, np.full((50, 50), 255, np.uint8)])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    found = {}
    for name, image, kind, settings in (
        ("palette", palette, "PNG", {}),
        ("transparent", Image.fromarray(transparent), "PNG", {}),
        ("cmyk", Image.fromarray(DARK).convert("CMYK"), "JPEG", {"quality": 95}),
        ("turned", Image.fromarray(DARK), "JPEG", {"quality": 95, "exif": exif}),
        ("tiff", Image.fromarray(DARK), "TIFF", {"compression": "tiff_lzw"}),
        ("script behind the image", Image.fromarray(DARK), "PNG", {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **settings)
        found[name] = buffer.getvalue()
    found["script behind the image"] += b"<script>alert(1)</script>PK\x03\x04"
    return found


@pytest.mark.parametrize("name", modes())
def test_unusual_images_are_read(name: str, server: Server) -> None:
    response = server.post("predict", modes()[name], "x.svg")
    assert response.status_code == 200, response.text
    assert response.json()["probability"] == pytest.approx(probability(DARK), abs=0.02)


HOSTILE = {
    "empty": (b"", 415, "unsupported_format"),
    "text": (b"hello\n" * 100, 415, "unsupported_format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 415, "unsupported_format"),
    "gif": (b"GIF89a" + bytes(50), 415, "unsupported_format"),
    "zip": (b"PK\x03\x04" + bytes(500), 415, "unsupported_format"),
    "truncated": (png(DARK)[:1500], 422, "damaged"),
    "truncated jpeg": (png(DARK, "JPEG")[:700], 422, "damaged"),
    "16 bit": (png(DARK[..., 0].astype(np.uint16) * 256), 422, "damaged"),
    "bomb": (bomb(9_000, 9_000), 422, "not_a_patch"),
    "larger bomb": (bomb(60_000, 60_000), 422, "damaged"),
    "largest bomb": (bomb(2**31 - 1, 2**31 - 1), 422, "damaged"),
    "too small": (png(DARK[:49]), 422, "not_a_patch"),
    "header only": (b"\x89PNG\r\n\x1a\n", 415, "unsupported_format"),
    "nonsense tiff": (b"II*\0" + b"\xff" * 300, 415, "unsupported_format"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("path", ["predict", "explain"])
def test_a_hostile_file_gets_an_error_and_the_next_an_answer(name: str, path: str, server: Server) -> None:
    content, status, code = HOSTILE[name]
    response = server.post(path, content)
    assert (response.status_code, problem(response)) == (status, code)
    assert server.post("predict", png(DARK)).json()["call"] == "cancer"


@pytest.mark.parametrize(
    "name", ["../../../../etc/passwd", "..\\..\\boot.ini", "/etc/shadow", "a\0b.png", "x" * 5000,
             "%0D%0ASet-Cookie: a=b"]
)
def test_names_are_shown_short_and_never_used(name: str, server: Server) -> None:
    boundary = b"--frontier"
    header = b'Content-Disposition: form-data; name="file"; filename="' + name.encode() + b'"'
    body = boundary + b"\r\n" + header + b"\r\n\r\n" + png(DARK) + b"\r\n" + boundary + b"--\r\n"
    response = server.client.post(
        "/api/v1/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=frontier"}
    )
    if response.status_code != 200:  # the parser may refuse a name, too
        assert problem(response) == "bad_request"
        return
    shown = response.json()["name"]
    assert len(shown) <= 120
    assert not set(shown) & set("/\\\r\n\0")


def test_model_figures_samples(server: Server) -> None:
    info = server.client.get("/api/v1/model").json()
    assert info["abstain"] == {"low": 0.3, "high": 0.7}
    assert info["input"]["spacing_um"] == 4.0
    assert "Research use only" in info["research_use_only"]
    assert {metric["name"] for metric in info["metrics"]} >= {"roc_auc", "balanced_accuracy"}
    (figure,) = info["figures"]
    picture = server.client.get(figure["url"])
    assert picture.headers["content-type"] == "image/png"
    assert problem(server.client.get("/api/v1/model/figures/..%2Fmodel")) == "not_found"
    assert server.client.get("/api/v1/model/card").json()["markdown"].startswith("---")
    samples = server.client.get("/api/v1/samples").json()
    assert [sample["kind"] for sample in samples] == ["patch"] * 8 + ["region"]
    for sample in samples:
        content = server.client.get(sample["url"]).content
        if sample["kind"] == "patch":
            assert server.post("predict", content).status_code == 200
        assert Image.open(io.BytesIO(content)).size == (50, 50) or sample["kind"] == "region"
