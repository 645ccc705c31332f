"""Clients that are slow on purpose: their connections are closed, and hold no memory."""

import asyncio
import contextlib
import functools
import socket
import threading
import time

import pytest
import uvicorn

from bertjax.serving.connection import MOST_HEAD_BYTES, Connection
from tests.serving.running import until

MUCH = b"x" * 30_000_000
MOST = 8
HELD = threading.Event()


async def application(scope, receive, send):
    while scope["path"] == "/held" and HELD.is_set():
        await asyncio.sleep(0.01)
    body = MUCH if scope["path"] == "/much" else b"little"
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def listening(patience):
    http = functools.partial(Connection, patience=patience, most=MOST, idle={})
    own = uvicorn.Server(
        uvicorn.Config(application, http=http, port=0, log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=own.run)
    thread.start()
    while thread.is_alive() and not own.started:
        time.sleep(0.01)
    try:
        yield own
    finally:
        own.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def listener():
    with listening(0.3) as own:
        yield own


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
    until(lambda: not listener.server_state.connections)


def test_new_connection_takes_the_place_of_the_longest_idle():
    """One with a call is not idle, whose place is taken last of all: the new one is refused."""
    with listening(60.0) as listener, contextlib.ExitStack() as opened:
        address = listener.servers[0].sockets[0].getsockname()

        def connect(path=None):
            own = opened.enter_context(socket.create_connection(address, timeout=20))
            if path:
                own.sendall(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
            return own

        def answers(own):
            own.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            return own.recv(1 << 16).startswith(b"HTTP/1.1 200")

        HELD.set()
        opened.callback(HELD.clear)
        first, second = connect(b"/held"), connect()
        others = [connect() for _ in range(MOST - 2)]
        until(lambda: len(listener.server_state.connections) == MOST)
        assert answers(others[0])  # so that it is idle since now
        more = [connect() for _ in range(MOST - 2)]
        assert all(own.recv(1) == b"" for own in (second, *others[1:]))
        assert answers(others[0])
        assert all(map(answers, more))

        busy = [connect(b"/held") for _ in range(MOST - 1)]
        until(lambda: len(listener.server_state.tasks) == MOST)
        refused = connect()
        assert refused.recv(100).startswith(b"HTTP/1.1 503")
        HELD.clear()
        assert all(own.recv(100).startswith(b"HTTP/1.1 200") for own in (first, *busy))
