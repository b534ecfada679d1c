"""Whose fault a failure is. Customers don't pay if we, or services that we depend on, fail.

docs/coding-tasks.md has the reasons. Failures are named as in Temporal's history.
"""

from coding_tasks.agent_worker.job import AGENT_MISSING, SANDBOX_MISSING
from coding_tasks.failures import (
    AcceptedCapReached,
    AgentEnded,
    ChangeRefused,
    CheckoutFailed,
    ModelFailed,
    ModelRefused,
    PublishingFailed,
    RepositoryBusy,
    RepositoryRefused,
    RepositoryTooBig,
    RepositoryUnreachable,
    ResultLost,
    RunCapReached,
    RunGivenUp,
    RunStopped,
    TokenRefused,
    UnpackingFailed,
)
from coding_tasks.threads import ABANDONED
from workflows.mention_types import (
    ANSWER_LOST,
    CALLS_THROTTLED,
    CREDITS_HELD,
    GATEWAY_OUT,
    NO_AGENT_WORKER,
    OUT_OF_CREDITS,
    OWNER_LEFT,
    STORES_OUT,
    TIMED_OUT,
)
from workflows.slack.client import Uninstalled

OURS = frozenset(
    {
        ABANDONED,
        AGENT_MISSING,
        ANSWER_LOST,
        CheckoutFailed.__name__,
        GATEWAY_OUT,
        ModelFailed.__name__,
        NO_AGENT_WORKER,
        RepositoryBusy.__name__,
        ResultLost.__name__,
        SANDBOX_MISSING,
        STORES_OUT,
        TIMED_OUT,
        TokenRefused.__name__,
        UnpackingFailed.__name__,
    }
)
THEIRS = frozenset(
    {
        # What a person, a limit or the repository's owner decided.
        AcceptedCapReached.__name__,
        CREDITS_HELD,
        OUT_OF_CREDITS,
        OWNER_LEFT,
        RepositoryRefused.__name__,
        RepositoryTooBig.__name__,
        RepositoryUnreachable.__name__,
        RunCapReached.__name__,
        RunStopped.__name__,
        Uninstalled.__name__,
        # What the agent did with the credits.
        CALLS_THROTTLED,
        AgentEnded.__name__,
        ChangeRefused.__name__,
        ModelRefused.__name__,
        # The answer and the change are kept, or the thread was told before.
        PublishingFailed.__name__,
        RunGivenUp.__name__,
    }
)


def is_ours(failure: str) -> bool:
    """Return whether a run that ended with this failure gets its cost back.

    A failure that neither set names counts as ours: it is usually a programming error.
    """
    return failure not in THEIRS
