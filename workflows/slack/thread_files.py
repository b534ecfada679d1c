"""The files of a thread's messages, for the agent: texts are quoted, and images are handed over.

Anybody in the channel can have attached them. So their number, bytes and pixels are bounded, and
what they are is judged by their bytes. Their names are only quoted.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slack_sdk import WebClient

from coding_tasks.material import InputFile
from coding_tasks.storable import storable
from coding_tasks.turns.images import Damaged, Image, image_of
from workflows.slack.client import failure_of
from workflows.slack.downloads import NotDelivered, TooLarge, download, may_be_sent_to
from workflows.slack.messages import author_of, safe_name

MOST_FILES = 10
MOST_BYTES = 8_000_000
"""Bytes of all files together."""
MOST_QUOTED = 50_000
"""Bytes of all files together that the prompt quotes."""
LARGEST_TEXT = 1_000_000
"""Bytes. Larger files are only named."""
LARGEST_IMAGE = 3_750_000
"""Bytes. In base64 these are the 5 MB that providers take."""
_SECONDS = 60.0
"""Seconds for all files together."""


class _NotShown(Exception):
    """The file is not shown. The message says why, in a few words."""


@dataclass
class FileBudget:
    """How many files, and how many bytes, can still be shown. It collects the files shown."""

    files: int = MOST_FILES
    size: int = MOST_BYTES
    quoted: int = MOST_QUOTED
    until: float = field(default_factory=lambda: time.monotonic() + _SECONDS)
    found: list[InputFile] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """The names of files that are not shown, each with the reason."""
    folder: str = ""
    """Where the agent finds the files. Empty: it sees images and quoted texts only."""

    def path(self, name: str) -> str:
        """Return where the agent finds a file, or only its name."""
        return f"{self.folder}/{name}" if self.folder else name


def shown(
    client: WebClient, message: Mapping[str, Any], file: Mapping[str, Any], budget: FileBudget
) -> str:
    """Return who attached the file, and its text, where its image is, or why it is not shown.

    https://docs.slack.dev/reference/objects/file-object/
    """
    name = safe_name(file.get("name") or "a file", 100)
    attached = f"{author_of(message)} attached {name}"
    try:
        content = _content(client, file, budget)
        image = _image(content)
        text = None if image else _text(content)
    except _NotShown as reason:
        budget.refused.append(f"{name} ({reason})")
        return f"{attached}, which is not shown: {reason}."
    if image is not None:
        path = _keep(budget, image.kind, content, is_image=True)
        return f"{attached}, an image of {image.width} × {image.height} pixels: {path}"
    path = _keep(budget, "txt", content)
    return f"{attached}{_quoted(text or '', path, budget)}"


def _quoted(text: str, path: str, budget: FileBudget) -> str:
    """Return as much of a text as can be quoted, and where the rest is."""
    quoted = text.encode()[: budget.quoted].decode(errors="ignore")
    budget.quoted -= len(quoted.encode())
    if quoted == text:
        return f":\n{storable(quoted)}"
    if not budget.folder:
        return f":\n{storable(quoted)}\n(cut here)" if quoted else ", which is too long to quote"
    if not quoted:
        return f", which is long: {path}"
    return f":\n{storable(quoted)}\n(cut here; all of it is in {path})"


def _keep(budget: FileBudget, ending: str, content: bytes, *, is_image: bool = False) -> str:
    """Hand the file over; return where the agent finds it."""
    name = f"{len(budget.found) + 1}.{ending}"
    budget.found.append(InputFile(name, content, is_image))
    return budget.path(name)


def _content(client: WebClient, file: Mapping[str, Any], budget: FileBudget) -> bytes:
    """Return the content of a file. Raises `_NotShown`."""
    if budget.files <= 0 or budget.size <= 0:
        raise _NotShown("there are too many files")
    if time.monotonic() > budget.until:
        raise _NotShown("Slack was too slow")
    file = _known(client, file)
    url, kind = file.get("url_private_download"), str(file.get("mimetype") or "")
    if file.get("is_external") or not isinstance(url, str) or not may_be_sent_to(url):
        raise _NotShown("Slack does not have it")
    size = file.get("size")
    if not isinstance(size, int) or size > LARGEST_IMAGE:
        raise _NotShown("it is too large")
    if size > budget.size:
        raise _NotShown("the files are too large together")
    budget.files -= 1
    most = min(LARGEST_IMAGE, budget.size)
    try:
        content = download(
            *(url, client.token or ""),
            most=most,
            until=budget.until,
            may_be_html="html" in kind,
        )
    except NotDelivered as reason:
        raise _NotShown(str(reason)) from reason
    except TooLarge:
        budget.size -= most  # as much as was loaded
        raise _NotShown("it is too large") from None
    budget.size -= len(content)
    return content


def _known(client: WebClient, file: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the whole description of a file, which Slack leaves out for other organizations.

    https://docs.slack.dev/apis/slack-connect/#files
    """
    if file.get("file_access") != "check_file_info":
        return file
    try:
        found = client.files_info(file=str(file.get("id"))).get("file")
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        reason = "Slack does not have it" if failure.is_refusal else "Slack did not deliver it"
        raise _NotShown(reason) from error
    return found if isinstance(found, dict) else {}


def _image(content: bytes) -> Image | None:
    """Return the image that the bytes are, or None. Raises `_NotShown`."""
    try:
        image = image_of(content)
    except Damaged as error:
        raise _NotShown("it is a damaged image") from error
    if image is not None and image.is_too_large:
        raise _NotShown("it has too many pixels")
    return image


def _text(content: bytes) -> str:
    """Return the bytes as a text. Raises `_NotShown`."""
    if len(content) > LARGEST_TEXT:
        raise _NotShown("it is too large")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _NotShown("it is neither text nor an image") from error
    if "\0" in text:
        raise _NotShown("it is neither text nor an image")
    return text
