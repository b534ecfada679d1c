"""Check that requests come from Slack: our secret signed these exact bytes a short time ago."""

from collections.abc import Callable, Mapping
from functools import wraps

from django.conf import settings
from django.db import Error as StoreError
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from slack_sdk.signature import Clock, SignatureVerifier

from slack_bot import arrivals
from slack_bot.models import SlackArrival

LARGEST_BODY = 1024 * 1024
"""Bytes. Slack's largest payloads are much smaller."""


def is_signed(
    body: bytes, headers: Mapping[str, str], secrets: list[str], clock: Clock | None = None
) -> bool:
    """Return whether any of the secrets signed the body, at most five minutes ago or ahead.

    Return False if there are no secrets.
    https://docs.slack.dev/authentication/verifying-requests-from-slack/
    """
    clock = clock or Clock()
    return any(_signed_with(secret, body, headers, clock) for secret in secrets)


def _signed_with(secret: str, body: bytes, headers: Mapping[str, str], clock: Clock) -> bool:
    try:
        return SignatureVerifier(secret, clock).is_valid_request(body, dict(headers))
    except Exception:
        # The verifier raises on timestamps that are not numbers, signatures that are not ASCII,
        # bodies that are not UTF-8 and empty secrets. None of these comes from Slack.
        return False


def signed_by_slack(
    view: Callable[[HttpRequest, bytes], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Make a view that passes the verified raw body of a POST from Slack to the function.

    It answers 401 if the body is not signed, and 413 if it is too large. If the database fails it
    answers 503: nothing was recorded, and Slack delivers the request again.
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
        kind = request.path.strip("/").rpartition("/")[2]
        if not is_signed(body, request.headers, settings.SLACK_SIGNING_SECRETS):
            if "X-Slack-Signature" in request.headers:
                arrivals.note(SlackArrival.Way.WRONG_SIGNATURE, kind)
            return HttpResponse("not signed", status=401, content_type="text/plain")
        try:
            answer = view(request, body)
        except StoreError:
            return HttpResponse(
                "try again", status=503, content_type="text/plain", headers={"Retry-After": "30"}
            )
        arrivals.note(SlackArrival.Way.HTTP, kind)
        return answer

    return verified


def _declared_length(request: HttpRequest) -> int:
    declared = request.META.get("CONTENT_LENGTH") or "0"
    # Python refuses to parse a number with thousands of digits.
    return int(declared[:20]) if declared.isascii() and declared.isdigit() else 0
