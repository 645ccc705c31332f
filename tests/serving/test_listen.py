"""Where a server listens, and which signals end it."""

import os
import resource
import signal
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import uvicorn

from bertjax.program.errors import UserError
from bertjax.serving.edge import ERRORS, LOG
from bertjax.serving.keys import Keys
from bertjax.serving.listen import (
    LAST_CALLS,
    MOST_CONNECTIONS,
    OTHER_FILES,
    _Listener,
    allow_connections,
    listen,
    open_sockets,
)
from bertjax.serving.server import Server
from bertjax.serving.settings import ServeConfig
from tests.serving.served_models import tiny_model


def test_address_in_use_and_one_that_is_none_are_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: Address already in use; pass"):
            open_sockets("127.0.0.1", port)
    with pytest.raises(UserError, match=r"--hostname a..b --port 0: .*pass an address"):
        open_sockets("a..b", 0)


def test_hangup_of_the_terminal_ends_a_server_unless_it_is_ignored():
    listener = _Listener(uvicorn.Config(lambda: None), None)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with listener.capture_signals():
            assert signal.getsignal(signal.SIGHUP) == listener.handle_exit
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with listener.capture_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_server_whose_model_cannot_be_served_leaves_no_thread_behind():
    before = threading.active_count()
    with pytest.raises(AttributeError):
        Server({"none": None}, ServeConfig())
    assert threading.active_count() == before


@pytest.fixture
def logs(monkeypatch):
    for log in (LOG, ERRORS):
        for name, value in {"propagate": True, "handlers": [], "level": log.level}.items():
            monkeypatch.setattr(log, name, value)


def test_port_that_another_server_took_meanwhile_is_refused():
    [first] = open_sockets("127.0.0.1", 0)
    port = first.getsockname()[1]
    [second] = open_sockets("127.0.0.1", port)
    server = SimpleNamespace(config=ServeConfig(port=port))
    with first:
        first.listen()
        with pytest.raises(UserError, match=f"--port {port}: Address already in use; pass"):
            listen(server, [second], Keys(), None)
    assert second.fileno() == -1


@pytest.mark.parametrize(
    ("limits", "most", "raised"),
    [
        ((1024, -1), MOST_CONNECTIONS, MOST_CONNECTIONS + OTHER_FILES),
        ((1024, 2048), 2048 - OTHER_FILES, 2048),
        ((1024, 1024), 1024 - OTHER_FILES, None),
        ((1 << 20, 1 << 20), MOST_CONNECTIONS, None),
        ((-1, -1), MOST_CONNECTIONS, None),
        ((64, 64), 1, None),
    ],
)
def test_connections_are_as_many_as_the_limit_of_open_files_allows(
    monkeypatch, limits, most, raised
):
    found = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda which, given: found.append(given))
    assert allow_connections() == most
    assert found == ([(raised, limits[1])] if raised else [])


def test_signal_while_it_compiles_ends_the_server_after_the_shape(logs):
    server = Server({"tiny": tiny_model("BertModel")}, ServeConfig(explain=False))
    finished = []

    def warm_up():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(4 * LAST_CALLS)  # the server would have ended long ago
        finished.append("a shape")
        server.warm_up()

    listen(server, open_sockets("127.0.0.1", 0), Keys(), warm_up)
    assert finished
    assert not server.is_ready.is_set()


def test_warm_up_that_fails_ends_the_server_with_its_error(logs):
    server = Server({"tiny": tiny_model("BertModel")}, ServeConfig(explain=False))

    def warm_up():
        raise UserError("no memory for it")

    with pytest.raises(UserError, match="no memory for it"):
        listen(server, open_sockets("127.0.0.1", 0), Keys(), warm_up)
    assert not any(thread.is_alive() for thread in server.engine._threads)
