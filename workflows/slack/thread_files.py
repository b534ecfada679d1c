"""The files of a thread's messages, as text for the agent.

Anybody in the channel can have attached them, so their number, size and names are bounded.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from django.conf import settings
from slack_sdk import WebClient

from coding_tasks.storable import storable
from workflows.slack.messages import author_of, safe_name

MOST_FILES = 5
MOST_OF_FILES = 50_000
"""Bytes of all files together."""
LARGEST_FILE = 1_000_000
"""Bytes. Larger files are only named."""
_SECONDS = 10
"""Seconds that a download can wait for data."""
_HOSTS = {"files.slack.com", "files.slack-gov.com"}
"""The hosts to which a bot token can be sent, to download a file."""
_NO_TEXT = ("image/", "audio/", "video/")


class _NotShown(Exception):
    """The file is not shown. The message says why, in a few words."""


@dataclass
class FileBudget:
    """How many files, and how many bytes of them, can still be shown."""

    files: int = MOST_FILES
    size: int = MOST_OF_FILES


def shown(
    client: WebClient, message: Mapping[str, Any], file: Mapping[str, Any], budget: FileBudget
) -> str:
    """Return who attached the file, and its text or why that is not shown."""
    name = safe_name(file.get("name") or "a file", 100)
    attached = f"{author_of(message)} attached {name}"
    try:
        text = _text_of_file(client, file, budget)
    except _NotShown as reason:
        return f"{attached}, which is not shown: {reason}."
    return f"{attached}:\n{text}"


def _text_of_file(client: WebClient, file: Mapping[str, Any], budget: FileBudget) -> str:
    """Return the text of a file. Raises `_NotShown`.

    https://docs.slack.dev/reference/objects/file-object/
    """
    url, kind = file.get("url_private_download"), str(file.get("mimetype") or "")
    if kind.startswith(_NO_TEXT):
        raise _NotShown("it is not text")
    if file.get("is_external") or not isinstance(url, str) or not _may_be_sent_to(url):
        raise _NotShown("Slack does not have it")
    if budget.files <= 0 or budget.size <= 0:
        raise _NotShown("there are too many files")
    size = file.get("size")
    if not isinstance(size, int) or size > LARGEST_FILE:
        raise _NotShown("it is too large")
    budget.files -= 1
    content = _download(url, client.token or "", kind)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _NotShown("it is not text") from error
    if "\0" in text:
        raise _NotShown("it is not text")
    shown = storable(content[: budget.size].decode(errors="ignore"))
    budget.size -= len(shown.encode())
    return shown if len(content) <= len(shown.encode()) else f"{shown}\n(cut here)"


def _may_be_sent_to(url: str) -> bool:
    """Return whether a bot token can be sent to the address, because it is Slack's own."""
    parts, own = urlsplit(url), urlsplit(settings.SLACK_API_URL)
    at_slack = parts.scheme == "https" and parts.netloc in _HOSTS
    return at_slack or (parts.scheme, parts.netloc) == (own.scheme, own.netloc)


def _download(url: str, token: str, kind: str) -> bytes:
    """Return the content of a file. Raises `_NotShown`."""
    try:
        with requests.get(
            url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_SECONDS,
            stream=True,
            allow_redirects=False,
        ) as answer:
            given = answer.headers.get("Content-Type", "")
            # If a permission is missing, Slack answers with its login page.
            if answer.status_code != 200 or (given.startswith("text/html") and "html" not in kind):
                raise _NotShown("the bot may not read files here")
            content = b"".join(_bounded(answer.iter_content(65_536)))
    except requests.RequestException as error:
        raise _NotShown("Slack did not deliver it") from error
    return content


def _bounded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > LARGEST_FILE:
            raise _NotShown("it is too large")
        yield chunk
