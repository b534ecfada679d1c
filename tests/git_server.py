"""A git server for tests: real `git http-backend` behind real HTTP, with a login."""

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

USER, TOKEN = "x-access-token", "ghs_secret-token-of-the-test"


class GitServer:
    """Serves the bare repositories of a folder to those who log in with `USER` and `TOKEN`.

    `status` answers every request of a push with that status instead. `paths` has all requests, and
    `tokens` those that are let in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status = 0
        self.paths: list[str] = []
        self.tokens = {TOKEN}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            do_POST = do_PATCH = do_GET

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        self.paths.append(request.path)
        length = int(request.headers.get("Content-Length") or 0)
        chunked = request.headers.get("Transfer-Encoding") == "chunked"
        body = _chunks(request) if chunked else request.rfile.read(length)
        self.answer_git(request, parts, body)

    def answer_git(self, request: BaseHTTPRequestHandler, parts: SplitResult, body: bytes) -> None:
        if request.headers.get("Authorization") not in map(_basic, self.tokens):
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if self.status and "receive-pack" in request.path:
            request.send_response(self.status)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        environment = os.environ | {
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REMOTE_USER": USER,
        }
        backend = ["git", "-c", "http.receivepack=true", "http-backend"]
        ran = subprocess.run(backend, input=body, env=environment, capture_output=True, check=False)
        head, _, content = ran.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if line)
        request.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


def _basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"{USER}:{token}".encode()).decode()


def _chunks(request: BaseHTTPRequestHandler) -> bytes:
    body = b""
    while size := int(request.rfile.readline().strip() or b"0", 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body
