"""A GitHub for tests: git over HTTP, pull requests and app installations, with its own errors.

    with FakeGitHub(folder) as github:
        github.fail_next("POST", "/repos/acme/shop/pulls", secondary_limit())

Bodies and headers of errors are those that GitHub documents and sends.
"""

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs

import jwt

from tests.git_server import GitServer

API = "/api/v3"
APP_ID = "1234"
INSTALLATION = 42


@dataclass(frozen=True)
class Fault:
    """An answer instead of the usual one. With `done`, the request is carried out all the same."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    done: bool = False


def bad_credentials() -> Fault:
    return Fault(
        401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest"}
    )


def not_accessible() -> Fault:
    return Fault(403, {"message": "Resource not accessible by integration"})


def rate_limit(seconds: int = 30) -> Fault:
    return Fault(
        403,
        {"message": "API rate limit exceeded for installation ID 42."},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time()) + seconds)},
    )


def secondary_limit(retry_after: int = 7) -> Fault:
    return Fault(
        403,
        {"message": "You have exceeded a secondary rate limit. Please wait a few minutes."},
        {"retry-after": str(retry_after)},
    )


def too_many_requests() -> Fault:
    return Fault(429, {"message": "Too many requests"}, {"retry-after": "3"})


def not_found() -> Fault:
    return Fault(404, {"message": "Not Found", "status": "404"})


def invalid(message: str) -> Fault:
    return Fault(
        422,
        {
            "message": "Validation Failed",
            "errors": [{"resource": "PullRequest", "code": "custom", "message": message}],
        },
    )


def server_error(status: int = 502, *, done: bool = False) -> Fault:
    return Fault(status, {"message": "Server Error"}, done=done)


def nonsense() -> Fault:
    return Fault(200, b"<html>it works</html>")


class FakeGitHub(GitServer):
    """Serves repositories `OWNER/NAME.git` of a folder, and an API for them at `api_url`.

    `public_key` verifies the app's tokens. `hang` is set to let requests that hang go on.
    """

    def __init__(self, folder: Path, public_key: str = "") -> None:
        super().__init__(folder)
        self.api_url = self.url + API
        self.public_key = public_key
        self.pull_requests: list[dict[str, Any]] = []
        self.hang = threading.Event()
        self._faults: list[tuple[str, str, Fault | None]] = []
        self._lock = threading.Lock()

    def __exit__(self, *exception: object) -> None:
        self.hang.set()
        super().__exit__(*exception)

    def fail_next(self, method: str, path: str, fault: Fault) -> None:
        """Answer the next such request with the fault."""
        self._faults.append((method, path, fault))

    def hang_next(self, method: str, path: str) -> None:
        """Do not answer the next such request."""
        self._faults.append((method, path, None))

    def answer_git(self, request: BaseHTTPRequestHandler, parts: SplitResult, body: bytes) -> None:
        if not parts.path.startswith(API):
            return super().answer_git(request, parts, body)
        path = parts.path.removeprefix(API)
        with self._lock:
            fault = self._fault(request.command, path)
            if isinstance(fault, Fault) and not fault.done:
                return self._send(request, fault)
            answer = self._answer(request, path, parse_qs(parts.query), body)
        if fault is _HANG:
            self.hang.wait(30)
        return self._send(request, fault if isinstance(fault, Fault) else answer)

    def _fault(self, method: str, path: str) -> "Fault | object | None":
        for number, (fault_method, fault_path, fault) in enumerate(self._faults):
            if (fault_method, fault_path) == (method, path):
                del self._faults[number]
                return _HANG if fault is None else fault
        return None

    def _answer(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]], body: bytes
    ) -> Fault:
        kind, _, token = (request.headers.get("Authorization") or "").partition(" ")
        if path == f"/app/installations/{INSTALLATION}/access_tokens":
            try:
                claims = jwt.decode(token, self.public_key, algorithms=["RS256"])
            except jwt.PyJWTError:
                return Fault(401, {"message": "A JSON web token could not be decoded"})
            assert str(claims["iss"]) == APP_ID
            made = f"ghs_installation-{len(self.tokens)}"
            self.tokens.add(made)
            return Fault(201, {"token": made, "expires_at": "2099-01-01T00:00:00Z"})
        if kind.lower() not in ("token", "bearer") or token not in self.tokens:
            return bad_credentials()
        _, _, owner, name, *rest = path.split("/")
        if rest[:1] != ["pulls"] or not (self.folder / owner / f"{name}.git").is_dir():
            return not_found()
        if len(rest) > 1:
            return self._one(request.command, rest[1], body)
        if request.command == "GET":
            head = query.get("head", [""])[0]
            return Fault(
                200,
                [
                    pull
                    for pull in self.pull_requests
                    if pull["head"]["label"] == head and pull["state"] == "open"
                ],
            )
        return self._create(owner, name, json.loads(body))

    def _create(self, owner: str, name: str, given: dict[str, Any]) -> Fault:
        label = f"{owner}:{given['head']}"
        opened = (pull for pull in self.pull_requests if pull["state"] == "open")
        if any(pull["head"]["label"] == label for pull in opened):
            return invalid(f"A pull request already exists for {label}.")
        number = len(self.pull_requests) + 1
        pull = {
            "number": number,
            "state": "open",
            "merged": False,
            "html_url": f"https://github.com/{owner}/{name}/pull/{number}",
            "url": f"{self.api_url}/repos/{owner}/{name}/pulls/{number}",
            "head": {"ref": given["head"], "label": label},
            "base": {"ref": given["base"]},
            "title": given["title"],
            "body": given["body"],
        }
        self.pull_requests.append(pull)
        return Fault(201, pull)

    def _one(self, method: str, number: str, body: bytes) -> Fault:
        """Return one pull request, after changing it if that is asked."""
        found = [pull for pull in self.pull_requests if str(pull["number"]) == number]
        if not found:
            return not_found()
        if method == "PATCH":
            found[0]["state"] = json.loads(body)["state"]
        return Fault(200, found[0])

    def _send(self, request: BaseHTTPRequestHandler, answer: Fault) -> None:
        raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        try:
            request.send_response(answer.status)
            for name, value in answer.headers.items():
                request.send_header(name, value)
            request.send_header("Content-Type", "application/json; charset=utf-8")
            request.send_header("Content-Length", str(len(raw)))
            request.end_headers()
            request.wfile.write(raw)
        except OSError:  # the client has given up
            pass


_HANG = object()
