"""Sentences that tell a thread why its work was given up."""

from django.conf import settings

from coding_tasks.agent_worker.job import AGENT_MISSING, SANDBOX_MISSING
from coding_tasks.failures import (
    AcceptedCapReached,
    AgentEnded,
    CheckoutFailed,
    ModelFailed,
    RepositoryRefused,
    RepositoryTooBig,
    RepositoryUnreachable,
    RunCapReached,
    TokenRefused,
    UnpackingFailed,
)
from coding_tasks.repositories.bounds import BOUNDS
from quota.resources import AI_CREDITS
from workflows import denials, wording
from workflows.mention_types import (
    ANSWER_LOST,
    CALLS_THROTTLED,
    CREDITS_HELD,
    GATEWAY_OUT,
    NO_AGENT_WORKER,
    OUT_OF_CREDITS,
    STORES_OUT,
    TIMED_OUT,
)


def sentence(
    failure: str,
    *,
    user_id: str = "",
    repository: str = "",
    agent: str = "",
    resource: str = AI_CREDITS,
) -> str:
    """Return the message about a failure, named by its type in Temporal's history.

    It begins with a mention of the user, if there is one and the cause is unknown.
    """
    credits_name = denials.credits_name(resource)
    if failure == AGENT_MISSING:
        return wording.agent_missing(agent)
    if failure == SANDBOX_MISSING:
        return wording.sandbox_missing()
    if failure == NO_AGENT_WORKER:
        return wording.no_agent_worker()
    if failure == AgentEnded.__name__:
        return wording.agent_ended(agent)
    if failure == ModelFailed.__name__:
        return wording.provider_unavailable()
    if failure in (
        CheckoutFailed.__name__,
        RepositoryRefused.__name__,
        RepositoryUnreachable.__name__,
    ):
        return wording.repository_unavailable(repository)
    if failure == RepositoryTooBig.__name__:
        return wording.repository_too_big(repository, BOUNDS)
    if failure == UnpackingFailed.__name__:
        return wording.repository_not_unpacked(repository)
    if failure == AcceptedCapReached.__name__:
        return wording.accepted_cap_reached(credits_name=credits_name)
    if failure == RunCapReached.__name__:
        return wording.run_cap_reached(credits_name=credits_name)
    if failure in (GATEWAY_OUT, ANSWER_LOST):
        return wording.gateway_out()
    if failure == CALLS_THROTTLED:
        return wording.calls_throttled()
    if failure == CREDITS_HELD:
        return wording.credits_held(credits_name=credits_name, billing_url=settings.BILLING_URL)
    if failure in (STORES_OUT, TokenRefused.__name__):
        return wording.stores_out()
    if failure == OUT_OF_CREDITS:
        return wording.out_of_credits(credits_name=credits_name)
    if failure == TIMED_OUT:
        return wording.took_too_long()
    return wording.failed(user_id)
