"""Listening, and ending in order: what was taken is finished, and the exit code is 0."""

import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from bertjax.serving.app import make_app
from bertjax.serving.keys import Keys
from bertjax.serving.server import Server


class _Listener(uvicorn.Server):
    """Uvicorn's server, which does not send itself the signal that ended it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and prints where: the port may have been any free one."""
        await super().startup(sockets)
        for own in self.servers:
            host, port, *_ = own.sockets[0].getsockname()
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            print(f"{url}  routes {url}/docs", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends in order on SIGTERM and SIGINT."""
        before = {one: signal.signal(one, self.handle_exit) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def listen(server: Server, keys: Keys, warm_up: Callable[[], None]) -> None:
    """Serves until a signal ends it.

    Args:
        server: what answers.
        keys: of those who may call.
        warm_up: see `make_app`.
    """
    config = server.config
    listener = _Listener(
        uvicorn.Config(
            make_app(server, keys, warm_up),
            host=config.hostname,
            port=config.port,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=int(config.request_timeout),
        )
    )
    listener.run()
