"""Connections of clients that are slow on purpose, or for good, or too many: they are cut off."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

# Bytes of a call's first line and headers, but for what arrives together with the last of them.
MOST_HEAD_BYTES = 1 << 16


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, which waits for a call's headers and for a reader only so long.

    Past the most that may be open, a new connection takes the place of the one that has been
    without a call for longest, so that those who ask nothing keep nobody out.

    Args:
        patience: seconds for the headers of a call to arrive, and for an answer to be read.
        most: connections that may be open at a time.
        idle: those without a call, of all connections, the longest idle first.
        options: of uvicorn's own.
    """

    def __init__(
        self, *, patience: float, most: int, idle: dict["Connection", None], **options: Any
    ) -> None:
        super().__init__(**options)
        self._patience, self._most, self._idle = patience, most, idle
        self._is_in_head, self._head_bytes = False, 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Waits for a first call."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            if not self._idle:
                self._refuse(503, "too many connections; try again")
                return
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.transport.close()
        self._idle[self] = None
        self._head_timer = self.loop.call_later(self._patience, self._end_waiting)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets what it waited for."""
        super().connection_lost(exc)
        self._idle.pop(self, None)
        for timer in (self._head_timer, self._read_timer):
            if timer:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Reads on; refuses headers that do not end."""
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._is_in_head or self.transport.is_closing():
            return
        if self._head_bytes > MOST_HEAD_BYTES:
            self._refuse(431, f"the headers have more than {MOST_HEAD_BYTES:,} bytes")
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self._patience, self._end_waiting)

    def on_message_begin(self) -> None:
        """Begins to count a call's headers."""
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Leaves the rest of the time to the body and the answer, which the edge limits."""
        self._is_in_head = False
        self._idle.pop(self, None)
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Waits for the answer to be read."""
        super().on_response_complete()
        if self._read_timer:
            self._read_timer.cancel()
        self._read_timer = self.loop.call_later(self._patience, self._drop_unread)
        if self.cycle.response_complete and not self.transport.is_closing():
            self._idle[self] = None  # no other call has arrived meanwhile

    def _end_waiting(self) -> None:
        self._head_timer = None
        if self._is_in_head:
            self._refuse(408, "the headers did not arrive in time")
        else:
            self.transport.close()

    def _drop_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        head = b"content-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        content = message.encode()
        self.transport.write(STATUS_LINE[status] + head % len(content) + content)
        self.transport.close()
