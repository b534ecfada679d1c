"""Download what people attached in Slack, with the bot token and from Slack's own hosts only."""

import time
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
from django.conf import settings
from urllib3.exceptions import HTTPError

SECONDS = 10
"""Seconds that a download can wait for data."""
_HOSTS = {"files.slack.com", "files.slack-gov.com"}
"""The hosts to which a bot token can be sent, to download a file."""
_CHUNK = 65_536


class NotDelivered(Exception):
    """There is no content. The message says why, in a few words."""


class TooLarge(Exception):
    """The file has more bytes than were asked for."""


class _Readable(Protocol):
    def read1(self, amount: int, decode_content: bool) -> bytes: ...


def may_be_sent_to(url: str) -> bool:
    """Return whether a bot token can be sent to the address, because it is Slack's own."""
    try:
        parts, own = urlsplit(url), urlsplit(settings.SLACK_API_URL)
    except ValueError:
        return False
    at_slack = parts.scheme == "https" and parts.netloc in _HOSTS
    return at_slack or (parts.scheme, parts.netloc) == (own.scheme, own.netloc)


def download(url: str, token: str, *, most: int, until: float, may_be_html: bool) -> bytes:
    """Return the content of a file, of at most this many bytes.

    `until` is when to stop waiting, by the monotonic clock. Redirects are not followed, because
    they could take the token elsewhere. Raises `NotDelivered` and `TooLarge`.
    """
    headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
    try:
        with requests.get(
            url, headers=headers, timeout=SECONDS, stream=True, allow_redirects=False
        ) as answer:
            _check(answer, may_be_html=may_be_html)
            content = bytearray()
            for chunk in _chunks(answer.raw):
                content += chunk
                if len(content) > most:
                    raise TooLarge
                if time.monotonic() > until:
                    raise NotDelivered("Slack was too slow")
    # urllib3's own errors reach us too, because the content is read past `requests`.
    except (requests.RequestException, OSError, HTTPError) as error:
        raise NotDelivered("Slack did not deliver it") from error
    return bytes(content)


def _check(answer: Any, *, may_be_html: bool) -> None:
    given = answer.headers.get("Content-Type", "")
    if answer.status_code in (404, 410):
        raise NotDelivered("Slack does not have it")
    if answer.status_code >= 500 or answer.status_code == 429:
        raise NotDelivered("Slack did not deliver it")
    # If a permission is missing, Slack answers with its login page or leads to it.
    if answer.status_code != 200 or (given.startswith("text/html") and not may_be_html):
        raise NotDelivered("the bot may not read files here")
    # A small packed answer could unpack to a huge one. Slack sends files as they are.
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise NotDelivered("Slack did not deliver it")


def _chunks(raw: _Readable) -> Iterator[bytes]:
    """Yield data as soon as it arrives, so that a slow sender is noticed."""
    while chunk := raw.read1(_CHUNK, decode_content=False):
        yield chunk
