"""HTTP below the application: heads and chunks without end, requests behind one another, other protocols."""

from __future__ import annotations

import re
import socket
from itertools import repeat

import pytest
from web_server import Server, problem, send_until_cut

HOST = b"Host: localhost\r\n"
HEALTH = b"GET /api/v1/health HTTP/1.1\r\n" + HOST


def talk(server: Server, *pieces: bytes) -> bytes:
    """Everything that the server says until it closes the connection."""
    with socket.create_connection(server.address, timeout=30) as connection:
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def test_requests_behind_one_another_are_answered_in_order(server: Server) -> None:
    missing = b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = talk(server, HEALTH + b"\r\n" + missing + HEALTH + b"Connection: close\r\n\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"404", b"200"]


def test_nonsense_behind_a_request_does_not_come_before_its_answer(server: Server) -> None:
    answer = talk(server, HEALTH + b"\r\n" + b"\x00nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "start",
    [HEALTH + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
     HEALTH + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n"],
)  # fmt: skip
def test_other_protocols_are_not_spoken(start: bytes, server: Server) -> None:
    answer = talk(server, start + HEALTH + b"\r\n")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "request_line",
    [b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n",
     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n" + HOST + b"A : b\r\n\r\n",
     b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"],
)  # fmt: skip
def test_ambiguous_requests_are_refused(request_line: bytes, server: Server) -> None:
    answer = talk(server, request_line)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"bad_request" in answer


CHUNKED = b"POST /api/v1/predict HTTP/1.1\r\n" + HOST + b"Content-Type: image/png\r\n"
CHUNKED += b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("piece", [b"X: " + b"a" * 1000 + b"\r\n", b"a" * 1000])
@pytest.mark.parametrize("start", [CHUNKED + b"0\r\n", CHUNKED + b"1;", CHUNKED + b"1\r\nx\r\n0\r\n"])
def test_what_stands_around_chunks_has_an_end(piece: bytes, start: bytes, server: Server) -> None:
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(start)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_until_cut(connection, repeat(piece, 20_000))
    assert server.client.get("/api/v1/health").status_code == 200


def test_before_the_model_is_loaded_it_is_alive_and_not_ready(server: Server) -> None:
    assert server.at_first["health"].status_code == 200
    for path in ("ready", "model"):
        response = server.at_first[path]
        assert (response.status_code, problem(response)) == (503, "not_ready")
        assert response.headers["retry-after"] == "2"
