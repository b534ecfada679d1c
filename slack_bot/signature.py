"""Whether a request is from Slack: signed with our secret, lately, over the very bytes we read."""

from collections.abc import Callable, Mapping
from functools import wraps

from django.conf import settings
from django.db import Error as StoreError
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from slack_sdk.signature import Clock, SignatureVerifier

LARGEST_BODY = 1024 * 1024
"""Bytes; Slack's largest payloads are a fraction of this."""


def is_signed(
    body: bytes, headers: Mapping[str, str], secrets: list[str], clock: Clock | None = None
) -> bool:
    """Return whether any of the secrets signed the body, at most five minutes ago or ahead.

    Without a secret, nothing is signed.
    https://docs.slack.dev/authentication/verifying-requests-from-slack/
    """
    clock = clock or Clock()
    return any(_signed_with(secret, body, headers, clock) for secret in secrets)


def _signed_with(secret: str, body: bytes, headers: Mapping[str, str], clock: Clock) -> bool:
    try:
        return SignatureVerifier(secret, clock).is_valid_request(body, dict(headers))
    except Exception:
        # The verifier raises on timestamps that are no numbers, signatures that are not ASCII,
        # bodies that are not UTF-8 and empty secrets: nothing of that is from Slack.
        return False


def signed_by_slack(
    view: Callable[[HttpRequest, bytes], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Make a view of a function that is handed the verified raw body of a POST from Slack.

    What is not signed is answered 401; what is too large 413; when the database fails, 503: nothing
    was kept then, and Slack delivers again.
    """

    @csrf_exempt
    @require_POST
    @wraps(view)
    def verified(request: HttpRequest) -> HttpResponse:
        if _declared_length(request) > LARGEST_BODY:
            return HttpResponse("too large", status=413, content_type="text/plain")
        try:
            body = request.body
        except UnreadablePostError:
            return HttpResponse("the body ended early", status=400, content_type="text/plain")
        if not is_signed(body, request.headers, settings.SLACK_SIGNING_SECRETS):
            return HttpResponse("not signed", status=401, content_type="text/plain")
        try:
            return view(request, body)
        except StoreError:
            return HttpResponse(
                "try again", status=503, content_type="text/plain", headers={"Retry-After": "30"}
            )

    return verified


def _declared_length(request: HttpRequest) -> int:
    declared = request.META.get("CONTENT_LENGTH") or "0"
    # Thousands of digits are more than Python reads as a number.
    return int(declared[:20]) if declared.isascii() and declared.isdigit() else 0
