"""What a call is refused with: one class, from which each client's form of an error is made."""

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of error: its name in text-embeddings-inference's JSON, and its status."""

    name: str
    status: int


EMPTY = Kind("Empty", 400)
UNAUTHORIZED = Kind("Unauthorized", 401)
NOT_FOUND = Kind("Validation", 404)
SLOW = Kind("Timeout", 408)
CONFLICT = Kind("Overloaded", 409)
TOO_LARGE = Kind("Validation", 413)
UNSUPPORTED = Kind("Validation", 415)
VALIDATION = Kind("Validation", 422)
BACKEND = Kind("Backend", 424)
OVERLOADED = Kind("Overloaded", 429)
UNHEALTHY = Kind("Unhealthy", 503)
INTERNAL = Kind("Backend", 500)
LATE = Kind("Timeout", 504)


class RefusedError(Exception):
    """A call that is not answered, and why; the message names the field and the way out."""

    def __init__(self, kind: Kind, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.headers = kind, message, headers or {}
