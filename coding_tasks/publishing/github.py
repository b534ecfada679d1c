"""Pull requests and installation tokens, through GitHub's API.

Nothing is tried again here: Temporal repeats the activity.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import jwt
import requests
from github import Auth, Github, GithubException, GithubIntegration, RateLimitExceededException
from github.PullRequest import PullRequest

from coding_tasks.repositories.git import printable

TIMEOUT = 15  # seconds that GitHub may be silent
_LONGEST_WAIT = 3600  # seconds
_LONGEST_MESSAGE = 200
_PULL_REQUEST = "such pull request"
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _INVALID, _TOO_MANY = 401, 403, 404, 422, 429


class GitHubFailed(Exception):
    """GitHub did not do what was asked. `retry_after` is in seconds, 0 if GitHub did not say."""

    def __init__(self, message: str, *, permanent: bool, retry_after: int = 0) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after


@dataclass(frozen=True)
class PullRequestDraft:
    """A pull request to open: from a branch of the repository to its base branch."""

    repository: str
    branch: str
    base: str
    title: str
    body: str


@dataclass(frozen=True)
class GitHub:
    """GitHub's API with a token, which `repr` does not show."""

    api_url: str
    token: str = field(repr=False)

    def pull_request(self, draft: PullRequestDraft) -> str:
        """Return the address of the open pull request from the branch, opening one if needed.

        Raises `GitHubFailed`.
        """
        with _failures(draft.repository), self._client() as client:
            repository = client.get_repo(draft.repository)
            owner = draft.repository.partition("/")[0]
            head = f"{owner}:{draft.branch}"
            if found := _first(repository.get_pulls(state="open", head=head), draft.branch):
                return found
            try:
                made = repository.create_pull(
                    base=draft.base, head=draft.branch, title=draft.title, body=draft.body
                )
            except GithubException as error:
                # An earlier attempt, whose answer was lost, may have opened it.
                if error.status == _INVALID and "already exists" in _words(error):
                    found = _first(repository.get_pulls(state="open", head=head), draft.branch)
                    if found:
                        return found
                raise
            return _address(made)

    def is_merged(self, repository: str, address: str) -> bool:
        """Return whether the pull request at an address was merged. Raises `GitHubFailed`."""
        with _failures(_PULL_REQUEST), self._client() as client:
            return bool(_at(client, repository, address).merged)

    def close(self, repository: str, address: str) -> None:
        """Close the pull request at an address, if it is open. Raises `GitHubFailed`."""
        with _failures(_PULL_REQUEST), self._client() as client:
            found = _at(client, repository, address)
            if found.state == "open":
                found.edit(state="closed")
            if found.state == "open":
                raise GitHubFailed("GitHub's answer cannot be read", permanent=False)

    @contextmanager
    def _client(self) -> Iterator[Github]:
        client = Github(
            auth=Auth.Token(self.token),
            base_url=self.api_url,
            timeout=TIMEOUT,
            retry=None,
            seconds_between_requests=None,
            seconds_between_writes=None,
            lazy=True,
        )
        try:
            yield client
        finally:
            client.close()


def installation_token(api_url: str, app_id: str, private_key: str, installation_id: int) -> str:
    """Return a new token of a GitHub App's installation. It is valid for an hour.

    Raises `GitHubFailed`.
    """
    with _failures("the app's installation"):
        integration = GithubIntegration(
            auth=Auth.AppAuth(app_id, private_key),
            base_url=api_url,
            timeout=TIMEOUT,
            retry=None,
            seconds_between_requests=None,
            seconds_between_writes=None,
        )
        try:
            return integration.get_access_token(installation_id).token
        finally:
            integration.close()


def _first(found: Iterable[PullRequest], branch: str) -> str:
    """Return the address of the pull request from the branch, or an empty text.

    A server that ignores the filter lists others too.
    """
    for pull_request in found:
        if pull_request.head.ref == branch:
            return _address(pull_request)
    return ""


def _at(client: Github, repository: str, address: str) -> PullRequest:
    number = address.rpartition("/")[2]
    if not number.isdigit():
        raise GitHubFailed("this is no pull request's address", permanent=True)
    return client.get_repo(repository).get_pull(int(number))


def _address(pull_request: PullRequest) -> str:
    address = pull_request.html_url
    if not isinstance(address, str) or not address.startswith(("https://", "http://")):
        raise GitHubFailed("GitHub's answer cannot be read", permanent=False)
    return address


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Raise `GitHubFailed` for everything that the client library and the network raise."""
    try:
        yield
    except GitHubFailed:
        raise
    except requests.RequestException as error:
        raise GitHubFailed("GitHub cannot be reached", permanent=False) from error
    except GithubException as error:
        raise _failure(error, what) from error
    except (jwt.PyJWTError, ValueError) as error:
        raise GitHubFailed("the app's private key cannot be used", permanent=True) from error
    except (TypeError, KeyError, AttributeError) as error:
        raise GitHubFailed("GitHub's answer cannot be read", permanent=False) from error


def _failure(error: GithubException, what: str) -> GitHubFailed:
    wait = _wait(error)
    if isinstance(error, RateLimitExceededException) or error.status == _TOO_MANY or wait:
        return GitHubFailed("GitHub's rate limit is reached", permanent=False, retry_after=wait)
    if error.status == _UNAUTHORIZED:
        return GitHubFailed("GitHub does not accept the credential", permanent=True)
    if error.status == _NOT_FOUND:
        return GitHubFailed(
            f"GitHub has no {what}, or the credential may not see it", permanent=True
        )
    if error.status == _FORBIDDEN:
        return GitHubFailed(f"GitHub does not allow it: {_words(error)}", permanent=True)
    if error.status == _INVALID:
        return GitHubFailed(f"GitHub refused it: {_words(error)}", permanent=True)
    temporary = not 400 <= error.status < 500
    return GitHubFailed(f"GitHub answered with {error.status}", permanent=not temporary)


def _wait(error: GithubException) -> int:
    """Return the seconds that GitHub said to wait, or 0 if the error is no rate limit."""
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status not in (_FORBIDDEN, _TOO_MANY):
        return 0
    if (after := headers.get("retry-after", "")).isdigit():
        return min(max(int(after), 1), _LONGEST_WAIT)
    reset = headers.get("x-ratelimit-reset", "")
    if headers.get("x-ratelimit-remaining") == "0" and reset.isdigit():
        return min(max(int(reset) - int(time.time()), 1), _LONGEST_WAIT)
    return 0


def _words(error: GithubException) -> str:
    """Return GitHub's own words: its message and those about fields, in one short line."""
    data = error.data if isinstance(error.data, dict) else {}
    errors = data.get("errors")
    words = [str(data.get("message", ""))]
    for each in errors if isinstance(errors, list) else []:
        words.append(str(each.get("message", "")) if isinstance(each, dict) else str(each))
    return printable(" ".join(words))[:_LONGEST_MESSAGE]
