"""A small server that answers `huggingface_hub` as the hub does, from folders on this disk."""

import hashlib
import http.server
import json
import threading
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandInHub:
    """A hub of models at `endpoint`, while it is entered.

    Attributes:
        endpoint: its address, for `HF_ENDPOINT`.
        requests: what it was asked, method and path.
    """

    def __init__(self, folders, refusals=None):
        """Takes the models.

        Args:
            folders: repository -> the folder of its files; it has the revisions main and v1.
            refusals: repository -> (status, value of X-Error-Code) of every answer.
        """
        self.folders = {name: Path(folder) for name, folder in folders.items()}
        self.refusals = refusals or {}
        self.requests = []

    def __enter__(self):
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.requests.append(f"{self.command} {self.path}")
                status, headers, body = hub._answer(self.path.partition("?")[0].strip("/"))
                self.send_response(status)
                for name, value in {"Content-Length": len(body), **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path):
        parts = path.removeprefix("api/models/").split("/")
        repo, route = "/".join(parts[:2]), parts[2:]
        if repo in self.refusals:
            status, code = self.refusals[repo]
            return status, {"X-Error-Code": code} if code else {}, b"{}"
        if repo not in self.folders:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if route and route[1] not in ("main", "v1", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        folder = self.folders[repo]
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if not route or route[0] == "revision":
            names = [{"rfilename": str(file.relative_to(folder))} for file in files]
            return self._json({"id": repo, "sha": COMMIT, "siblings": names})
        if route[0] == "tree":
            return self._json(
                [
                    {
                        "type": "file",
                        "path": str(file.relative_to(folder)),
                        "size": file.stat().st_size,
                        "oid": _checksum(file),
                    }
                    for file in files
                ]
            )
        file = folder.joinpath(*route[2:])  # resolve/REVISION/FILE
        if not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{_checksum(file)}"'}, file.read_bytes()

    def _json(self, value):
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _checksum(file):
    return hashlib.sha1(file.read_bytes()).hexdigest()
