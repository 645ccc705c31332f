"""Listening, and ending in order: what was taken is finished, and the exit code is 0."""

import asyncio
import contextlib
import functools
import logging
import math
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from bertjax.program.errors import UserError, describe_os_error
from bertjax.serving.app import make_app
from bertjax.serving.connection import Connection
from bertjax.serving.edge import ERRORS, LOG
from bertjax.serving.engine import ClosingError
from bertjax.serving.keys import Keys
from bertjax.serving.server import Server

# Seconds for which calls that are on their way are still read, and refused, before listening stops
# and after.
LAST_CALLS = 0.3
# Connections that may be open at a time, and other files that a server may open.
MOST_CONNECTIONS, OTHER_FILES = 4096, 256


class _Listener(uvicorn.Server):
    """Uvicorn's server, which does not send itself the signal that ended it."""

    def __init__(self, config: uvicorn.Config, served: Server) -> None:
        super().__init__(config)
        self._served = served

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and prints where: the port may have been any free one."""
        await super().startup(sockets)
        for own in self.servers:
            host, port, *_ = own.sockets[0].getsockname()
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            print(f"{url}  routes {url}/docs", file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuses new calls from now on."""
        self._served.is_ending = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Goes on refusing for a moment, then stops listening, and finishes what was taken.

        A connection that waits to be accepted when listening stops is cut off; refusals are quick,
        so that few do.
        """
        await asyncio.sleep(LAST_CALLS)
        for own in self.servers:
            own.close()
        await asyncio.sleep(LAST_CALLS)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends in order on the signals that are not ignored, as SIGHUP is under nohup."""
        before = {
            one: signal.signal(one, self.handle_exit)
            for one in _SIGNALS
            if signal.getsignal(one) is not signal.SIG_IGN
        }
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def open_sockets(hostname: str, port: int) -> list[socket.socket]:
    """Returns sockets with the addresses of a host, which do not listen yet.

    Raises:
        UserError: there is no such address here, or it is in use.
    """
    sockets = []
    with _naming_address(hostname, port, sockets):
        found = socket.getaddrinfo(hostname, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            own = socket.socket(family, kind, protocol)
            sockets.append(own)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            own.bind(address)
    return sockets


@contextlib.contextmanager
def _naming_address(hostname: str, port: int, sockets: list[socket.socket]) -> Iterator[None]:
    """Closes the sockets on an error, and raises a `UserError` that names their address."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        for own in sockets:
            own.close()
        reason = describe_os_error(error) if isinstance(error, OSError) else error
        raise UserError(
            f"--hostname {hostname} --port {port}: {reason}; pass an address of this machine"
            " (0.0.0.0 = all) and a port that is free (0 = any)"
        ) from None


def allow_connections() -> int:
    """Returns how many connections may be open; the limit of open files is raised if it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST_CONNECTIONS
    if hard == resource.RLIM_INFINITY or hard > soft:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, soft - OTHER_FILES)


def listen(
    server: Server, sockets: list[socket.socket], keys: Keys, warm_up: Callable[[], None]
) -> None:
    """Serves until a signal ends it.

    Args:
        server: what answers.
        sockets: to listen on.
        keys: of those who may call.
        warm_up: see `make_app`; what it raises ends the server, and is raised here.

    Raises:
        UserError: another program listens on the same port by now.
    """
    config = server.config
    with _naming_address(config.hostname, config.port, sockets):
        for own in sockets:
            own.listen()
    failures: list[BaseException] = []

    def warm_up_or_end() -> None:
        try:
            warm_up()
        except ClosingError:
            raise
        except BaseException as error:
            failures.append(error)
            listener.should_exit = True

    for log, is_wanted in ((LOG, config.access_log), (ERRORS, True)):
        log.setLevel(logging.INFO if is_wanted else logging.CRITICAL)
        log.propagate = False
        log.addHandler(logging.StreamHandler(sys.stderr))
    listener = _Listener(
        uvicorn.Config(
            make_app(server, keys, warm_up_or_end),
            http=functools.partial(
                Connection, patience=config.request_timeout, most=allow_connections(), idle={}
            ),
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=math.ceil(config.request_timeout),
        ),
        server,
    )
    listener.run(sockets)
    if failures:
        raise failures[0]
