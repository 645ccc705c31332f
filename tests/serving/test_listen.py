"""Where a server listens, and which signals end it."""

import signal
import socket
import threading

import pytest
import uvicorn

from bertjax.program.errors import UserError
from bertjax.serving.edge import ERRORS, LOG
from bertjax.serving.keys import Keys
from bertjax.serving.listen import _Listener, listen, open_sockets
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


def test_warm_up_that_fails_ends_the_server_with_its_error(monkeypatch):
    for log in (LOG, ERRORS):
        for name, value in {"propagate": True, "handlers": [], "level": log.level}.items():
            monkeypatch.setattr(log, name, value)
    server = Server({"tiny": tiny_model("BertModel")}, ServeConfig(explain=False))

    def warm_up():
        raise UserError("no memory for it")

    with pytest.raises(UserError, match="no memory for it"):
        listen(server, open_sockets("127.0.0.1", 0), Keys(), warm_up)
    assert not any(thread.is_alive() for thread in server.engine._threads)
