"""Sizes, times, hosts, origins, tokens: each refused with a problem, while others are served."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from web_server import Server, png, problem, send_until_cut, tissue

from ductal.web.bodies import AtOnce, BodyLimits
from ductal.web.problems import add_handlers
from ductal.web.security import Gate, SecureHeaders, host_name
from ductal.web.serve import is_loopback
from ductal.web.settings import Limits

PATCH = png(tissue(1.5))


def raw(server: Server, content: bytes, within: float = 30.0) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to bytes as they are."""
    with socket.create_connection(server.address, timeout=within) as connection:
        connection.sendall(content)
        answer = b""
        while part := connection.recv(65536):
            answer += part
            if b"\r\n\r\n" in answer and answer.rstrip().endswith(b"}"):
                break
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def head(server: Server, *lines: str, path: str = "/api/v1/predict") -> bytes:
    first = [f"POST {path} HTTP/1.1", f"Host: {server.address[0]}", "Content-Type: multipart/form-data; boundary=b"]
    return "\r\n".join([*first, *lines, "", ""]).encode()


def test_a_body_that_is_announced_too_large(server: Server) -> None:
    status, body = raw(server, head(server, "Content-Length: 99999999999"))
    assert (status, body["code"]) == (413, "too_large")


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large(chunked: bool, server: Server) -> None:
    content = b"--b\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\n" + bytes(3 << 20)

    def parts() -> Iterator[bytes]:
        for start in range(0, len(content), 1 << 16):
            yield content[start : start + (1 << 16)]

    response = server.client.post(
        "/api/v1/predict", content=parts() if chunked else content,
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )  # fmt: skip
    assert response.status_code == 413
    assert problem(response) == "too_large"
    assert server.post("predict", PATCH).status_code == 200


def test_a_body_that_never_ends_is_cut_off(server: Server) -> None:
    started = time.monotonic()
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(head(server, "Transfer-Encoding: chunked"))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_until_cut(connection, repeat(b"100000\r\n" + bytes(1 << 20) + b"\r\n"))
    assert time.monotonic() - started < 15


def test_too_many_files_and_a_form_without_end(server: Server) -> None:
    files = [("files", (f"{number}.png", b"x")) for number in range(501)]
    assert problem(server.client.post("/api/v1/predict/batch", files=files)) == "bad_request"
    response = server.client.post(
        "/api/v1/predict", content=b"--b\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\nabc",
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )  # fmt: skip
    assert problem(response) in ("bad_request", "invalid", "unsupported_format")
    response = server.client.post("/api/v1/predict", json={"file": "x"})
    assert problem(response) in ("invalid", "bad_request")


@pytest.mark.parametrize(
    "start", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b"]
)
def test_what_is_no_request(start: bytes, server: Server) -> None:
    status, body = raw(server, start + b"\r\n\r\n")
    assert (status, body["code"]) == (400, "bad_request")


def test_headers_without_end(server: Server) -> None:
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_until_cut(connection, repeat(b"X: " + b"a" * 1000 + b"\r\n"))
    assert server.client.get("/api/v1/health").status_code == 200


def test_slow_clients_are_cut_off_and_do_not_hinder_others(server: Server) -> None:
    started = time.monotonic()
    silent = [socket.create_connection(server.address, timeout=30) for _ in range(40)]
    creeping = socket.create_connection(server.address, timeout=30)
    creeping.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: ")
    stalled = socket.create_connection(server.address, timeout=30)
    stalled.sendall(head(server, "Content-Length: 5000") + b"--b\r\n")
    took = []
    for _ in range(20):
        before = time.monotonic()
        assert server.post("predict", PATCH).status_code == 200
        took.append(time.monotonic() - before)
    assert sorted(took)[10] < 2
    assert max(took) < 8  # less than the 10 seconds that each of the slow ones may pause
    answer = b""
    while b"too_slow" not in answer and (part := stalled.recv(65536)):  # head and body may come one after the other
        answer += part
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"too_slow" in answer
    for connection in (creeping, *silent):
        with connection, suppress(ConnectionResetError):
            assert connection.recv(100) == b""
    stalled.close()
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::2]"])
def test_other_names_are_refused(host: str, server: Server) -> None:
    response = server.client.get("/api/v1/health", headers={"Host": host})
    assert (response.status_code, problem(response)) == (421, "unknown_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8000"])
def test_names_of_the_loopback_interface(host: str, server: Server) -> None:
    assert server.client.get("/api/v1/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
     {"Origin": "http://127.0.0.1:1"}],
)  # fmt: skip
def test_pages_of_other_sites_may_change_nothing(headers: dict[str, str], server: Server) -> None:
    response = server.client.post("/api/v1/predict", files={"file": ("a.png", PATCH)}, headers=headers)
    assert (response.status_code, problem(response)) == (403, "foreign_origin")
    assert problem(server.client.delete("/api/v1/slides/x", headers=headers)) == "foreign_origin"


def test_the_own_page_may(server: Server) -> None:
    headers = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    response = server.client.post("/api/v1/predict", files={"file": ("a.png", PATCH)}, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/health", "/api/v1/nothing", "/", "/api/v1/slides/x"])
def test_headers_of_every_answer(path: str, server: Server) -> None:
    headers = server.client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
    if path.startswith("/api/"):
        assert headers["cache-control"] == "no-store"


def test_wrong_methods_and_addresses(server: Server) -> None:
    response = server.client.put("/api/v1/predict")
    assert (response.status_code, problem(response)) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    assert problem(server.client.get("/api/v2/model")) == "not_found"
    assert problem(server.client.get("/api/v1/docs")) == "not_found"


def test_the_token(run: Path) -> None:
    with Server(run, "--allow-host", "pathology.example", DUCTAL_TOKEN="sésame") as server:
        assert server.client.get("/api/v1/ready").status_code == 200
        response = server.client.get("/api/v1/model")
        assert (response.status_code, problem(response)) == (401, "unauthorised")
        assert response.headers["www-authenticate"].startswith("Bearer")
        for wrong in ("", "Bearer", "Bearer x", "Basic sésame", "Bearer sésame2"):
            response = server.client.get("/api/v1/model", headers={"Authorization": wrong.encode()})
            assert response.status_code == 401, wrong
        right = {"Authorization": "Bearer sésame".encode(), "Host": "pathology.example"}
        assert server.client.get("/api/v1/model", headers=right).status_code == 200
        assert "sésame" not in "".join(server.log)


def serve(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ductal", "serve", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_server_that_cannot_start_says_why(run: Path, server: Server, tmp_path: Path) -> None:
    cases = (
        ((str(run), "--host", "0.0.0.0"), 2, "DUCTAL_TOKEN"),
        ((str(run), "--port", str(server.address[1])), 2, "is in use"),
        ((str(tmp_path / "nothing"),), 9, "no run folder"),
    )
    started = [serve(*arguments) for arguments, _, _ in cases]
    for process, (_, code, words) in zip(started, cases, strict=True):
        said = process.communicate(timeout=60)[1]
        assert (process.returncode, words in said) == (code, True), said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("host", "name"),
    [("a", "a"), ("A:80", "a"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("", ""), ("a:b:c", "a:b"), (":80", "")],
)
def test_host_names(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False),
     ("192.168.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def small_app(**limits: Any) -> FastAPI:
    app = FastAPI()
    add_handlers(app)
    app.add_middleware(BodyLimits, limits=replace(Limits(), other_bytes=100, **limits), sizes={"/more": 1000})
    app.add_middleware(Gate)
    app.add_middleware(AtOnce, most=3, most_of={"/": 2})
    app.add_middleware(SecureHeaders)

    @app.post("/")
    @app.post("/more")
    async def length(request: Request) -> int:
        found = len(await request.body())
        await asyncio.sleep(0.05)
        return found

    return app


def test_more_than_allowed_at_a_time() -> None:
    async def both() -> list[int]:
        transport = httpx.ASGITransport(small_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            paths = ["/"] * 5 + ["/more"] * 3
            answers = await asyncio.gather(*(client.post(path) for path in paths))
            assert (await client.post("/")).status_code == 200  # there is room again
            return [answer.status_code for answer in answers]

    found = asyncio.run(both())
    assert sorted(found[:5]) == [200, 200, 503, 503, 503]
    assert sorted(found[5:]) == [200, 503, 503]


@pytest.mark.parametrize(
    ("path", "size", "status"), [("/", 100, 200), ("/", 101, 413), ("/more", 1000, 200), ("/more", 1001, 413)]
)
def test_the_last_byte_counts(path: str, size: int, status: int) -> None:
    async def post(content: Any) -> httpx.Response:
        transport = httpx.ASGITransport(small_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(path, content=content)

    async def pieces() -> Any:
        for _ in range(size):
            yield b"x"

    for content in (b"x" * size, pieces()):
        response = asyncio.run(post(content))
        assert response.status_code == status
        assert "content-security-policy" in response.headers


def test_a_creeping_body_has_a_minimal_rate() -> None:
    async def slow() -> Any:
        for _ in range(50):
            await asyncio.sleep(0.02)
            yield b"x"

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(small_app(body_seconds=0.2, slowest_bytes=1000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/", content=slow())

    response = asyncio.run(post())
    assert (response.status_code, problem(response)) == (408, "too_slow")
