"""Why an attempt at a run, or a call to a model, gave no answer.

A `RunFailure` uses up an attempt. After a `MustWait` the attempt is repeated without being counted.
`OutOfCredits` pauses the run.
"""

from datetime import datetime


class RunFailure(Exception):
    """The run has no answer. The message may quote git, the gateway or a provider."""

    summary = "the run has no answer"
    """The failure without quotations, for Temporal's history, which cannot be erased."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class CheckoutFailed(RunFailure):
    """The repository could not be fetched."""

    summary = "the repository could not be fetched"


class RepositoryUnreachable(CheckoutFailed):
    """The repository's host does not answer, or says that it cannot serve us now."""

    summary = "the repository could not be reached"


class RepositoryRefused(CheckoutFailed):
    """The repository refuses access, or is not there. Only its owner can change that."""

    summary = "the repository refuses access, or is not there"

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class RepositoryTooBig(CheckoutFailed):
    """The repository exceeds the bounds. Fetching it again does not help."""

    summary = "the repository is too big"

    def __init__(self, detail: str) -> None:
        super().__init__(f"{self.summary}: {detail}", permanent=True)


class UnpackingFailed(CheckoutFailed):
    """The repository was fetched, but its files could not be written out."""

    summary = "the repository could not be unpacked"


class RepositoryBusy(CheckoutFailed):
    """Other work held the repository's folder on this machine for too long."""

    summary = "the repository was in use for too long"


class ChangeRefused(RunFailure):
    """The agent's change cannot be committed. The message fits into the thread."""

    summary = "the change cannot be committed"

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class PublishingFailed(RunFailure):
    """The change could not be published this time, or (`permanent`) with these settings.

    `retry_after` is the number of seconds that the server said to wait, or 0 if it did not say.
    """

    summary = "the change could not be published"

    def __init__(self, message: str, *, permanent: bool = False, retry_after: int = 0) -> None:
        super().__init__(message, permanent=permanent)
        self.retry_after = retry_after


class ModelFailed(RunFailure):
    """The gateway or the provider behind it gave no answer this time."""

    summary = "the model gave no answer this time"


class ModelRefused(RunFailure):
    """The gateway or the provider behind it will never answer this call."""

    summary = "the model will not answer this call"

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class TokenRefused(RunFailure):
    """The gateway did not accept the token that was minted for the call.

    An earlier attempt that was believed dead may have revoked it. The next attempt has its own.
    """

    summary = "the gateway did not accept the token"


class RunCapReached(RunFailure):
    """The run reached the gateway's own cap for runs, which no credits change."""

    summary = "the run used what the gateway lets one run use"

    def __init__(self) -> None:
        super().__init__(self.summary, permanent=True)


class AcceptedCapReached(RunCapReached):
    """The run used what was accepted for it."""

    summary = "the run used the credits that were accepted for it"


class RunStopped(RunFailure):
    """Somebody stopped the run, so its work ends and its answer is not posted."""

    summary = "the run was stopped"

    def __init__(self) -> None:
        super().__init__(self.summary, permanent=True)


class RunGivenUp(RunFailure):
    """The run was given up while this attempt seemed dead, and its thread was told."""

    summary = "the run was given up before"

    def __init__(self) -> None:
        super().__init__(self.summary, permanent=True)


class AgentEnded(RunFailure):
    """The agent ended without an answer and without a change."""

    summary = "the agent ended without an answer"

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class ResultLost(RunFailure):
    """What the agent worker left in the exchange is missing or malformed."""

    summary = "the agent's result is missing"


class MustWait(Exception):
    """The call could not be made yet, for a reason outside the call.

    `retry_after` is the number of seconds that the gateway said to wait, or 0 if it did not say.
    """

    summary = "the call has to wait"

    def __init__(self, message: str, *, retry_after: int = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class GatewayUnavailable(MustWait):
    """Our own gateway could not be reached or could not decide. No provider was called."""

    summary = "the gateway is unavailable"


class AnswerLost(MustWait):
    """Our own gateway died during the call, so there may be an answer that was paid for."""

    summary = "the gateway went away during the call"


class CallsThrottled(MustWait):
    """The gateway put off a call because of the caller: it made too many, or sent one too slowly.

    Code in a sandbox can cause this on purpose.
    """

    summary = "the gateway puts off the calls of this run"


class CreditsHeld(MustWait):
    """Other calls hold the credits that this one needs."""

    summary = "other calls hold the credits"


class OutOfCredits(Exception):
    """The gateway refused a call, because the credits for it are used up.

    `cause` is the gateway's reason, such as `user_cap_reached`, or empty if it gave none.
    """

    def __init__(self, resets_at: datetime | None = None, cause: str = "") -> None:
        super().__init__("the gateway refused the call: the credits are used up")
        self.resets_at = resets_at
        self.cause = cause
