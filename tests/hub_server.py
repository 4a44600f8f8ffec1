"""A Hugging Face Hub on 127.0.0.1 for tests: it answers as told, serves a folder as a model, or never answers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "a" * 40


@contextlib.contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def answering(status: int, headers: dict[str, str] | None = None) -> Iterator[str]:
    """The address of a server that gives every question the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *args):
            pass

    with _serving(Handler) as address:
        yield address


@contextlib.contextmanager
def serving_model(name: str, folder: Path) -> Iterator[str]:
    """The address of a Hub that has one model, whose files lie in `folder`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body, status = b"", 404
            prefix = f"/{name}/resolve/"
            if self.path.startswith(prefix):
                file = folder / self.path.removeprefix(prefix).split("/", 1)[1]
                if file.is_file():
                    body, status = file.read_bytes(), 200
            elif self.path == f"/api/models/{name}":
                body, status = json.dumps({"id": name, "sha": COMMIT}).encode(), 200
            self.send_response(status)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            if status == 404:
                self.send_header("X-Error-Code", "EntryNotFound" if name in self.path else "RepoNotFound")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with _serving(Handler) as address:
        yield address


@contextlib.contextmanager
def never_answering() -> Iterator[str]:
    """The address of a server that takes the connection, and then says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def nobody() -> str:
    """An address where no one listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"
