"""The inputs and outputs of a mention's workflow: plain data that is safe to keep in its history.

They hold identifiers only. People's texts, models' answers and secrets stay in the database,
because a history cannot be erased.
"""

from dataclasses import dataclass
from enum import StrEnum

WORKFLOW_ID = "mention-{team}-{channel}-{ts}"
GATE_PATCH = "posthog-code-slack-billing-gate"
ONE_PAUSE_PATCH = "one-pause-for-each-run"
OUTAGE_PATCH = "runs-outlast-outages"
WAITS_PATCH = "the-gateway-is-waited-for"
AGENTS_PATCH = "agents-in-sandboxes"
QUOTES_PATCH = "runs-have-quotes"
OUT_OF_CREDITS = "out of credits"
SAID_ALREADY = "the denial was said already"
STOPPED = "stopped"
NO_REPOSITORY = 0
"""The id for the choice of no repository, for a question that needs no code."""
TIMED_OUT = "timed out"
STORES_OUT = "StoresOut"
GATEWAY_OUT = "GatewayUnavailable"
ANSWER_LOST = "AnswerLost"
CREDITS_HELD = "CreditsHeld"
CALLS_THROTTLED = "CallsThrottled"
NO_AGENT_WORKER = "NoAgentWorker"
UNINSTALLED = "Uninstalled"
OWNER_LEFT = "OwnerLeft"
HANDED_BACK = "handed back, because its task was gone"
ANOTHERS_TASK = "another user's task"
ASKED_FOR_CREDITS = "its author asked for credits, and now there are some"
UNDELIVERABLE = "the answer could not be posted: it is kept on the page of the thread"


def out_of_credits(reason: str | None) -> str:
    """Return the outcome to record for a refusal by a gate."""
    return f"{OUT_OF_CREDITS}: {reason}"


class Ending(StrEnum):
    """How a mention ended, in the same words as the states of its row."""

    REFUSED = "refused"
    FORWARDED = "forwarded"
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(frozen=True)
class MentionRef:
    """Names a mention's row."""

    mention_id: str


@dataclass(frozen=True)
class Conversation:
    """The task that a continued run of the workflow takes up, and the messages still to handle."""

    task_id: str
    follow_up_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class MentionInput:
    """The mention to handle, and how long and how often its workflow waits."""

    mention_id: str
    idle_seconds: float = 3600
    """How long a thread may be silent before its task is finished."""
    picker_seconds: float = 3600
    """How long the repository picker waits for a choice."""
    quote_seconds: float = 24 * 3600
    """How long the question about a run's cost waits for an answer."""
    pause_seconds: float = 7 * 24 * 3600
    """How long a run without credits waits for a top-up."""
    recheck_seconds: float = 5
    """How long a paused run waits before it first looks for credits unprompted."""
    attempts: int = 6
    """How many attempts the agent has when the provider or the repository does not answer."""
    outage_seconds: float = 3600
    """How long a run waits in all for our stores, our gateway, and credits held by others."""
    agent_worker_seconds: float = 120
    """How long a turn waits for an agent worker to take it."""
    lost_answers: int = 5
    """How often a run asks again after the gateway died with an answer that may have been paid."""
    conversation: Conversation | None = None
    """Set if the workflow continued as new in the middle of a conversation."""


@dataclass(frozen=True)
class MentionOutcome:
    """How a mention ended, and why, in words."""

    ending: Ending
    reason: str = ""


@dataclass(frozen=True)
class FollowUpReceived:
    """A further message for the thread's task was recorded."""

    follow_up_id: str


@dataclass(frozen=True)
class RepositoryChoice:
    """The author of the mention chose a repository in the picker, or `NO_REPOSITORY`."""

    repository_id: int


def workflow_id(team: str, channel: str, ts: str) -> str:
    """Return the id that makes the workflow of one Slack message unique."""
    return WORKFLOW_ID.format(team=team, channel=channel, ts=ts)
