"""Listening, and ending in order: what was taken is finished, and the exit code is 0."""

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping

import uvicorn

from bertjax.loaded import Model
from bertjax.serving.app import make_app
from bertjax.serving.keys import Keys
from bertjax.serving.server import Server
from bertjax.serving.settings import ServeConfig


class _Listener(uvicorn.Server):
    """Uvicorn's server, which does not send itself the signal that ended it."""

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


def listen(models: Mapping[str, Model], config: ServeConfig, keys: Keys) -> None:
    """Serves until a signal ends it.

    Args:
        models: by the names by which calls name them.
        config: of the server.
        keys: of those who may call.
    """
    server = Server(models, config)
    listener = _Listener(
        uvicorn.Config(
            make_app(server, keys),
            host=config.hostname,
            port=config.port,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=int(config.request_timeout),
        )
    )
    print(f"http://{config.hostname}:{config.port}", file=sys.stderr)
    listener.run()
