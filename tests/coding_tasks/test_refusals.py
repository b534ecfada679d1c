"""Errors of the gateway and of providers, and what they mean for a run."""

import httpx2
import pytest

from coding_tasks.failures import (
    AcceptedCapReached,
    CallsThrottled,
    CreditsHeld,
    GatewayUnavailable,
    ModelFailed,
    ModelRefused,
    OutOfCredits,
    RunCapReached,
    TokenRefused,
)
from coding_tasks.refusals import failure_of, failure_of_refusal
from workflows.activities.refunds import is_ours

OWN = {"x-tollgate-reason": "billable_credits"}
PASSED_ON = {"x-tollgate-provider": "anthropic"}


def failure(status: int, headers: dict[str, str], details: object = None) -> Exception:
    """Return what an answer of the Messages API means."""
    body = None if details is None else {"type": "error", "error": details}
    return failure_of(status, httpx2.Headers(headers), body)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (503, "store_unavailable"),
        (503, "authentication_unavailable"),
        (503, "quota_unknown"),
        (503, "too_many_bodies"),
        (503, "internal"),
        (503, "a reason of a later gateway"),
        (429, "too_many_bodies"),
        (429, "too_many_concurrent_requests"),
        (429, "requests_per_minute"),
        (408, "request_timeout"),
    ],
)
def test_a_call_waits_while_the_gateway_cannot_decide(status, reason):
    headers = {"x-tollgate-reason": reason, "retry-after": "7"}
    found = failure(status, headers, {"reason": reason})
    assert type(found) is GatewayUnavailable
    assert found.retry_after == 7


@pytest.mark.parametrize(
    ("status", "reason", "meaning"),
    [
        (503, "store_unavailable", GatewayUnavailable),
        (503, "too_many_bodies", GatewayUnavailable),
        (429, "too_many_bodies", CallsThrottled),
        (429, "too_many_concurrent_requests", CallsThrottled),
        (429, "requests_per_minute", CallsThrottled),
        (409, "call_under_way", CallsThrottled),
        (408, "request_timeout", CallsThrottled),
        (400, "invalid_request", ModelRefused),
    ],
)
def test_what_code_in_a_sandbox_can_cause_is_no_outage_of_ours(status, reason, meaning):
    headers = {"x-tollgate-reason": reason, "retry-after": "7"}
    if meaning is not ModelRefused:
        headers["x-should-retry"] = "true"
    found = failure_of_refusal({"status": status, "headers": headers, "details": None})
    assert type(found) is meaning
    assert is_ours(type(found).__name__) == (meaning is GatewayUnavailable)


@pytest.mark.parametrize("reason", ["provider_failed", "provider_timeout", "provider_unreachable"])
def test_gateways_report_of_a_silent_provider_counts_as_the_providers_failure(reason):
    assert type(failure(503, {"x-tollgate-reason": reason})) is ModelFailed


@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize("reason", ["store_unavailable", "billable_credits", "run_cap"])
def test_a_provider_that_imitates_the_gateway_is_not_believed(status, reason):
    details = {"type": "overloaded_error", "reason": reason, "cause": "gateway_run_cap_reached"}
    headers = PASSED_ON | {"x-should-retry": "true"}
    assert type(failure(status, headers, details)) is ModelFailed


@pytest.mark.parametrize("status", [402, 403, 429])
def test_lack_of_credits_is_recognized_by_its_reason_with_any_status(status):
    details = {"reason": "billable_credits", "cause": "user_cap_reached"}
    found = failure(status, OWN | {"x-should-retry": "false"}, details)
    assert type(found) is OutOfCredits
    assert found.cause == "user_cap_reached"
    assert type(failure(status, OWN)) is OutOfCredits


@pytest.mark.parametrize("reason", ["billable_credits", "run_cap"])
@pytest.mark.parametrize("cause", ["insufficient_remaining", "gateway_run_cap_reached"])
def test_credits_that_other_calls_hold_are_waited_for(reason, cause):
    headers = {"x-tollgate-reason": reason, "x-should-retry": "true", "retry-after": "1"}
    assert type(failure(429, headers, {"cause": cause})) is CreditsHeld


def test_a_cap_of_the_gateways_own_ends_the_run():
    details = {"reason": "run_cap", "cause": "gateway_run_cap_reached"}
    headers = {"x-tollgate-reason": "run_cap", "x-should-retry": "false"}
    assert type(failure(429, headers, details)) is RunCapReached
    assert type(failure(429, headers, {"cause": "run_cap_reached"})) is OutOfCredits


def test_a_run_that_used_what_was_accepted_ends_and_waits_for_no_credits():
    headers = {"x-tollgate-reason": "run_cap", "x-should-retry": "false"}
    found = failure(429, headers, {"cause": "accepted_cap_reached"})
    assert type(found) is AcceptedCapReached
    assert found.permanent
    assert not is_ours(type(found).__name__)


def test_a_token_that_was_revoked_meanwhile_is_replaced_by_another_attempt():
    found = failure(401, {"x-tollgate-reason": "unauthenticated", "x-should-retry": "false"})
    assert type(found) is TokenRefused
    assert not found.permanent


@pytest.mark.parametrize("status", [400, 403, 404, 413, 415])
def test_a_call_that_the_gateway_always_refuses_is_not_repeated(status):
    headers = {"x-tollgate-reason": "model_without_price", "x-should-retry": "false"}
    assert type(failure(status, headers)) is ModelRefused


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_without_a_gateway_is_not_mistaken_for_a_provider(status):
    assert type(failure(status, {"content-type": "text/html"})) is GatewayUnavailable
    assert type(failure(status, PASSED_ON)) is ModelFailed


def test_body_is_believed_if_the_gateway_does_not_mark_answers():
    assert type(failure(429, {}, {"reason": "billable_credits"})) is OutOfCredits
    assert type(failure(503, {}, {"reason": "store_unavailable"})) is GatewayUnavailable
    assert type(failure(503, {}, {"type": "overloaded_error"})) is ModelFailed
