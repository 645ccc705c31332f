"""Who may call: the keys of a server, which are never printed or logged."""

import hmac
from collections.abc import Iterable
from pathlib import Path

from bertjax.program.errors import UserError

# What anybody may see, as in text-embeddings-inference: whether the server is well, its figures,
# its page and its documentation. Every other call needs a key where there are keys.
PUBLIC_PATHS = ("/", "/health", "/ping", "/metrics", "/docs", "/openapi.json")


class Keys:
    """The keys of a server; with none, everybody may call.

    Args:
        keys: any number.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = tuple(key.encode(errors="surrogateescape") for key in keys)  # any bytes

    def __repr__(self) -> str:
        return f"Keys({len(self._keys)})"

    def __len__(self) -> int:
        return len(self._keys)

    def allow(self, method: str, path: str, authorization: bytes) -> bool:
        """Returns whether a call may be answered.

        Args:
            method: of HTTP.
            path: of the call.
            authorization: its header; empty for none.
        """
        if not self._keys or (method in ("GET", "HEAD") and path in PUBLIC_PATHS):
            return True
        scheme, _, given = authorization.strip().partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        # Every key is compared, so that the time says nothing of which one it was.
        return sum(hmac.compare_digest(key, given.strip()) for key in self._keys) > 0


def read_keys(file: Path | None, variable: str | None) -> Keys:
    """Returns the keys of a file and of an environment variable, one a line in each.

    Raises:
        UserError: a file that cannot be read, or has no key.
    """
    texts = [variable or ""]
    if file is not None:
        try:
            texts.append(file.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise UserError(f"--api-key-file {file}: {reason}") from None
        if not texts[1].strip():
            raise UserError(
                f"--api-key-file {file}: no key is in it; write one a line, or leave the option out"
            )
    return Keys(line.strip() for text in texts for line in text.splitlines() if line.strip())
