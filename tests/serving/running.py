"""A server that runs in a thread of the test's process, on a port of its own."""

import contextlib
import functools
import threading
import time

import httpx
import uvicorn

from bertjax.serving.app import make_app
from bertjax.serving.connection import Connection
from bertjax.serving.request_log import open_log
from bertjax.serving.server import Server
from bertjax.serving.settings import ServeConfig

# A call of httpx's own functions reads the certificates of the world first, for plain HTTP too.
http = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))


@contextlib.contextmanager
def running(models, keys=None, **settings):
    """The address and the `Server`, which is ready; few shapes, as batches are small."""
    config = ServeConfig(**{"max_batch_tokens": 64, "explain": False, **settings})
    server = Server(models, config, open_log(config))
    listener = uvicorn.Server(
        uvicorn.Config(
            make_app(server, keys),
            http=functools.partial(
                Connection, patience=server.config.request_timeout, most=100, idle={}
            ),
            port=0,
            log_config=None,
            lifespan="on",
        )
    )
    thread = threading.Thread(target=listener.run)
    thread.start()
    try:
        while thread.is_alive() and not (listener.started and server.is_ready.is_set()):
            time.sleep(0.01)
        [port] = (one.getsockname()[1] for own in listener.servers for one in own.sockets)
        yield f"http://127.0.0.1:{port}", server
    finally:
        listener.should_exit = True
        thread.join()


def count(address, name, **labels):
    """The value of a counter."""
    wanted = name + (
        "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}" if labels else ""
    )
    for line in http.get(f"{address}/metrics").text.splitlines():
        if line.startswith(f"{wanted} "):
            return float(line.split()[-1])
    return 0.0


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")
