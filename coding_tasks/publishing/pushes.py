"""Push a commit to a task's branch, and read what the repository says to that."""

import re
from dataclasses import dataclass

from coding_tasks.failures import PublishingFailed
from coding_tasks.publishing.outcomes import Rejected, Rejection
from coding_tasks.repositories.git import Ended, printable
from coding_tasks.repositories.mirrors import Mirrors
from coding_tasks.repositories.remotes import Remote

_LONGEST_QUOTE = 200
_REJECTED = re.compile(r"^!\t[^\t]*\t\[(?P<how>[^]]*)\](?: \((?P<why>.*)\))?$", re.MULTILINE)
_PROTECTED = (
    "protected branch",
    "gh006",
    "gh013",
    "rule violations",
    "you are not allowed to push",
)
_BEHIND = ("non-fast-forward", "fetch first", "stale info", "needs force")
_NO_PERMISSION = (
    "authentication failed",
    "could not read username",
    "permission denied",
    "permission to ",
    "returned error: 401",
    "returned error: 403",
    "write access to repository not granted",
    "access denied",
    "read only",
    "read-only",
    "insufficient permission",
    "refusing to allow",
)
_NOT_FOUND = ("not found", "does not exist", "does not appear to be a git repository")
# The remote's own trouble, which may pass.
_TEMPORARY = ("internal server error", "remote failure", "no space left", "try again", "timed out")


@dataclass(frozen=True)
class Pushed:
    """The commit is on the branch of the remote."""


def push(mirrors: Mirrors, remote: Remote, commit: str, branch: str) -> Pushed | Rejected:
    """Push the commit. Pushing it again changes nothing. Raises `PublishingFailed`."""
    with mirrors.reading(remote) as mirror:
        ended, report = mirror.push(remote, commit, branch)
    if ended.status == 0:
        return Pushed()
    return _rejection(ended, report.decode(errors="replace"), branch)


def put_back(
    mirrors: Mirrors, remote: Remote, branch: str, *, was: str, to: str
) -> Pushed | Rejected:
    """Have the branch point at `to` again, or delete it if `to` is empty.

    It is rejected as not fast-forward if the branch doesn't point at `was` any more. Raises
    `PublishingFailed`.
    """
    with mirrors.reading(remote) as mirror:
        ended, report = mirror.put_back(remote, branch, was=was, to=to)
    if ended.status == 0:
        return Pushed()
    return _rejection(ended, report.decode(errors="replace"), branch)


def _rejection(ended: Ended, report: str, branch: str) -> Rejected:
    """Return why the push was rejected. Raises `PublishingFailed` if that may pass."""
    found = _REJECTED.search(report)
    why = f"{found['how']} {found['why']}".lower() if found else ""
    said = f"{why} {ended.messages.lower()}"

    def has(signs: tuple[str, ...]) -> bool:
        return any(sign in said for sign in signs)

    if "hook declined" not in why and has(_TEMPORARY):
        raise PublishingFailed(ended.reason)
    if has(_PROTECTED):
        return Rejected(
            Rejection.PROTECTED,
            f"The push was rejected: rules of the repository protect the branch `{branch}`.",
        )
    if any(sign in why for sign in _BEHIND):
        return Rejected(
            Rejection.NON_FAST_FORWARD,
            f"The push was rejected: the branch `{branch}` has other commits by now.",
        )
    if has(_NO_PERMISSION):
        return Rejected(
            Rejection.NO_PERMISSION,
            "The push was rejected: the repository's credential has no permission to push.",
        )
    if found:
        words = _words_of_remote(ended.messages) or printable(found["why"] or found["how"])
        return Rejected(Rejection.REFUSED, f"The repository refused the push: {words}")
    if has(_NOT_FOUND):
        return Rejected(
            Rejection.NOT_FOUND,
            "The push was rejected: there is no such repository, or the credential may not see it.",
        )
    raise PublishingFailed(ended.reason)


def _words_of_remote(messages: str) -> str:
    """Return what the remote's hooks printed, in one short line."""
    remote = "remote:"
    lines = [line.removeprefix(remote) for line in messages.splitlines() if line.startswith(remote)]
    return printable(" ".join(lines))[:_LONGEST_QUOTE]
