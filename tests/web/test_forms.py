"""Files in a request: of forms, damaged forms, and bodies that are an image themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_server import Server, png, probability, problem, tissue

from ductal.web.forms import File, parse_form
from ductal.web.problems import ApiError

DARK = tissue(1.5)


def form(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    """A form of (Content-Disposition, content)."""
    return b"".join(
        b"--b\r\nContent-Disposition: form-data; " + said.encode() + b"\r\n\r\n" + content + b"\r\n"
        for said, content in parts
    ) + end  # fmt: skip


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_files_come_out_as_they_went_in(contents: list[bytes]) -> None:
    body = form(*((f'name="f"; filename="{number}.png"', content) for number, content in enumerate(contents)))
    expected = [File(f"{number}.png", content) for number, content in enumerate(contents)]
    assert parse_form(body, b"b", "f", 5) == expected


def test_other_fields_are_ignored_and_names_are_as_sent() -> None:
    body = form(('name="mpp"', b"4"), ('name=f; filename="\u00e9 x.png"', b"1"), ('name="g"; filename="y"', b"2"))
    assert parse_form(body, b"b", "f", 2) == [File("\u00e9 x.png", b"1")]


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "bad_request"), (b"nonsense", "bad_request"), (form(end=b"--b"), "bad_request"),
     (form(('name="f"; filename="a"', b"1"), end=b""), "bad_request"),
     (form(('name="f"; filename="a"', b"1"), ('name="f"; filename="b"', b"2")), "bad_request"),
     (form(*(('name="x"', b"1") for _ in range(9))), "bad_request"),
     (form(('name="f"', b"1")), "invalid"), (form(('name="g"; filename="a"', b"1")), "invalid"),
     (b"--b\r\n\r\nx\r\n--b--\r\n", "invalid")],
)  # fmt: skip
def test_forms_that_cannot_be_used(body: bytes, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_form(body, b"b", "f", 1)
    assert caught.value.code == code
    assert caught.value.detail.endswith(".")


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream"])
def test_an_image_may_be_the_body_itself(kind: str, server: Server) -> None:
    answer = server.client.post("/api/v1/predict", content=png(DARK), headers={"Content-Type": kind}).json()
    assert answer["probability"] == pytest.approx(probability(DARK), abs=1e-3)
    assert answer["name"] == "unnamed"


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data", "", "multipart/mixed"])
def test_other_bodies_are_refused(kind: str, server: Server) -> None:
    for path in ("predict", "predict/batch", "explain"):
        response = server.client.post(f"/api/v1/{path}", content=png(DARK), headers={"Content-Type": kind})
        assert problem(response) == "invalid"
    response = server.client.post("/api/v1/predict/batch", content=png(DARK), headers={"Content-Type": "image/png"})
    assert problem(response) == "invalid"


def test_a_large_file_of_a_patch_is_read(server: Server) -> None:
    padded = png(DARK) + bytes(200_000)
    assert server.post("predict", padded).json()["call"] == "cancer"
    assert problem(server.post("predict?views=perhaps", padded)) == "invalid"
    assert server.post("predict?views=1", padded).json()["d4"]["agree"] == 8
