"""Clients that are slow on purpose: their connections are closed, and hold no memory."""

import functools
import socket
import threading
import time

import pytest
import uvicorn

from bertjax.serving.connection import MOST_HEAD_BYTES, Connection

MUCH = b"x" * 30_000_000


async def application(scope, receive, send):
    body = MUCH if scope["path"] == "/much" else b"little"
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def listener():
    http = functools.partial(Connection, patience=0.3)
    own = uvicorn.Server(
        uvicorn.Config(application, http=http, port=0, log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=own.run)
    thread.start()
    while thread.is_alive() and not own.started:
        time.sleep(0.01)
    yield own
    own.should_exit = True
    thread.join()


@pytest.fixture
def connection(listener):
    address = listener.servers[0].sockets[0].getsockname()
    with socket.socket() as own:
        own.settimeout(20)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        own.connect(address)
        yield own


def read_all(connection):
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_connection_that_asks_nothing_is_closed(connection):
    assert read_all(connection) == b""


def test_headers_that_do_not_arrive_are_refused(connection):
    connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ")
    answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert answer.endswith(b"the headers did not arrive in time")


def test_later_call_is_limited_as_the_first(connection):
    connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"little"):
        answer += connection.recv(1 << 16)
    connection.sendall(b"GET /hea")
    assert read_all(connection).startswith(b"HTTP/1.1 408")


def test_headers_without_end_are_not_kept(connection):
    connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        connection.sendall(b"a" * 1000 * MOST_HEAD_BYTES)


def test_answer_that_is_not_read_is_dropped(listener, connection):
    connection.sendall(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n")
    assert connection.recv(1) == b"H"
    for _ in range(1000):
        if not listener.server_state.connections:
            break
        time.sleep(0.01)
    assert not listener.server_state.connections
