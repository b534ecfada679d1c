"""Calling Slack: the client of a workspace, and what a failed call means."""

import http.client
import re
import socket
import ssl
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError

import structlog
from cryptography.fernet import InvalidToken
from django.conf import settings
from django.db import Error as StoreError
from django.utils import timezone
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.web import SlackResponse

from projects.hints import run_soon
from projects.models import SlackWorkspace
from projects.slack import rotating_tokens

log = structlog.get_logger(__name__)

_Client = TypeVar("_Client", bound=WebClient)

TIMEOUT = 10
"""Seconds without an answer after which a call counts as lost."""

_DEFAULT_RETRY_AFTER = 30
_LONGEST_RETRY_AFTER = 3600
_ERROR_CODE = re.compile(r"[a-z0-9_]+")
# https://docs.slack.dev/reference/methods/chat.postMessage/#errors; docs/slack.md lists them all.
_RATE_LIMITED = {"ratelimited", "rate_limited", "message_limit_exceeded"}
_TEMPORARY = {
    "service_unavailable",
    "request_timeout",
    "external_channel_migrating",
    "team_added_to_org",
    "org_login_required",
    "token_expired",  # with token rotation: it is being renewed, or the app is installed again
    "accesslimited",  # the administrators' list of networks, which they can correct
}
_PERHAPS_DONE = {"internal_error", "fatal_error", "update_failed"}
_DISCONNECTED = {"account_inactive", "token_revoked", "invalid_auth", "not_authed"}
_REFUSED_HERE = {
    "channel_not_found",
    "not_in_channel",
    "is_archived",
    "is_inactive",
    "cannot_reply_to_message",
    "restricted_action",
    "restricted_action_read_only_channel",
    "restricted_action_thread_only_channel",
    "restricted_action_non_threadable_channel",
    "restricted_action_thread_locked",
    "thread_locked",
    "thread_not_found",
    "message_not_found",
    "messages_tab_disabled",
    "ekm_access_denied",
    "no_permission",
    "access_denied",
    "app_access_restricted",
    "team_not_found",
    "team_access_not_granted",
    # of conversations.open, chat.postEphemeral and files.completeUploadExternal
    "user_not_found",
    "user_not_visible",
    "user_disabled",
    "user_not_in_channel",
    "invalid_user_combination",
    "invalid_channel",
    "posting_to_channel_denied",
}
"""Another place may accept the message. Another text or a file will be refused here too."""


class Uninstalled(Exception):
    """The app is no longer installed in the workspace, so Slack must not be called for it."""


class Meaning(Enum):
    """What a failed call means for the next step."""

    REFUSED = "refused"  # not done; another text or a file may be accepted
    REFUSED_HERE = "refused here"  # not done; another place may accept it
    LATER = "later"  # not done; worth another attempt
    UNKNOWN = "unknown"  # perhaps done
    DISCONNECTED = "disconnected"  # not done; all calls for this workspace fail


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: what it means, and Slack's error code or the exception's name."""

    meaning: Meaning
    error: str
    retry_after: int | None = None
    """Seconds that Slack asked us to wait."""
    method: str = ""
    """The method that was called, if Slack answered."""
    is_silence: bool = False
    """Whether the call ended at its time limit, without an answer."""

    @property
    def is_refusal(self) -> bool:
        """Whether Slack refused, and would refuse again."""
        return self.meaning in (Meaning.REFUSED, Meaning.REFUSED_HERE)

    @property
    def is_permanent(self) -> bool:
        """Whether the same call is not worth another attempt."""
        return self.is_refusal or self.meaning is Meaning.DISCONNECTED


def client_for(workspace: SlackWorkspace, timeout: int = TIMEOUT) -> WebClient:
    """Return a client with the workspace's bot token. Retries are up to the caller.

    Raises `Uninstalled` for an inactive workspace.
    """
    if not workspace.is_active:
        raise Uninstalled(str(workspace))
    client = _WorkspaceClient(workspace.bot_token, **_options(timeout))
    client.workspace_id = workspace.pk
    return _through_urllibs_proxy(client)


def web_client(token: str | None = None, timeout: int = TIMEOUT) -> WebClient:
    """Return a client of the configured Slack that obeys `HTTPS_PROXY` and `NO_PROXY`."""
    return _through_urllibs_proxy(WebClient(token, **_options(timeout)))


class _WorkspaceClient(WebClient):
    """Makes sure that the bot token is renewed soon if Slack says that it has expired."""

    workspace_id: int

    def api_call(self, *arguments: Any, **options: Any) -> SlackResponse:
        try:
            return super().api_call(*arguments, **options)
        except SlackApiError as error:
            if error.response.get("error") == "token_expired":
                _renew_soon(self.workspace_id, self.token or "")
            raise


def _renew_soon(workspace_id: int, bot_token: str) -> None:
    try:
        if rotating_tokens.note_expired(workspace_id, bot_token, timezone.now()):
            run_soon("workflows.tasks.refresh_slack_tokens")
    except StoreError as error:
        log.warning("an expired token was not recorded", error=type(error).__name__)


def _options(timeout: int) -> dict[str, Any]:
    return {
        "base_url": settings.SLACK_API_URL,
        "timeout": timeout,
        "retry_handlers": [],
        "ssl": _trusted_authorities(),
    }


@cache
def _trusted_authorities() -> ssl.SSLContext:
    """Return the authorities that this machine trusts, cached because reading them takes 25 ms."""
    return ssl.create_default_context()


def _through_urllibs_proxy(client: _Client) -> _Client:
    # The SDK ignores NO_PROXY. If it has no proxy of its own, urllib obeys both variables.
    client.proxy = None
    return client


def failure_of(error: Exception) -> Failure | None:
    """Return what an exception of a Slack call means, or None if Slack did not cause it."""
    if isinstance(error, SlackApiError):
        return _api_failure(error)
    if isinstance(error, SlackRequestError | HTTPError):  # Slack refused a file's bytes
        return Failure(Meaning.REFUSED, "upload_failed")
    if isinstance(error, Uninstalled):
        return Failure(Meaning.DISCONNECTED, "uninstalled")
    if isinstance(error, InvalidToken):
        # The bot token was encrypted with a SECRET_KEY that is no longer configured.
        return Failure(Meaning.LATER, "bot_token_unreadable")
    if isinstance(error, URLError) and isinstance(
        error.reason, ConnectionRefusedError | socket.gaierror
    ):
        return Failure(Meaning.LATER, type(error.reason).__name__)
    if isinstance(error, OSError | http.client.HTTPException | ValueError):
        reason = error.reason if isinstance(error, URLError) else error
        silence = isinstance(reason, TimeoutError)
        return Failure(Meaning.UNKNOWN, type(error).__name__, is_silence=silence)
    return None


def _api_failure(error: SlackApiError) -> Failure:
    response = error.response
    said = str(response.get("error") or "")
    is_code = _ERROR_CODE.fullmatch(said) is not None
    # If an answer is not JSON, the SDK's error quotes it.
    code = said[:100] if is_code else f"http_{response.status_code}"
    if response.status_code == 429 or code in _RATE_LIMITED:
        method = response.api_url.rpartition("/")[2]
        return Failure(Meaning.LATER, code, _retry_after(response.headers), method)
    if response.status_code >= 500 or code in _PERHAPS_DONE or (said and not is_code):
        return Failure(Meaning.UNKNOWN, code)
    if code in _TEMPORARY:
        return Failure(Meaning.LATER, code)
    if code in _DISCONNECTED:
        return Failure(Meaning.DISCONNECTED, code)
    if code in _REFUSED_HERE:
        return Failure(Meaning.REFUSED_HERE, code)
    return Failure(Meaning.REFUSED, code)


def _retry_after(headers: dict[str, str]) -> int:
    value = next((v for name, v in headers.items() if name.lower() == "retry-after"), "")
    if not (value.isascii() and value.isdigit()):
        return _DEFAULT_RETRY_AFTER
    return min(int(value[:20]), _LONGEST_RETRY_AFTER)
