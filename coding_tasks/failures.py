"""Why a call to a model, and with it an attempt at a run, gave no answer.

Three families: a `RunFailure` takes an attempt, a `MustWait` takes none, and `OutOfCredits` pauses.
"""

from datetime import datetime


class RunFailure(Exception):
    """Why a run has no answer. Its text may quote git, the gateway or a provider."""

    in_short = "the run has no answer"
    """The same without a quotation, for what cannot be erased."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class CheckoutFailed(RunFailure):
    """The repository could not be fetched."""

    in_short = "the repository could not be fetched"


class RepositoryTooBig(CheckoutFailed):
    """The repository exceeds the bounds of what is unpacked. Fetching it again does not help."""

    in_short = "the repository is too big"

    def __init__(self, detail: str) -> None:
        super().__init__(f"{self.in_short}: {detail}", permanent=True)


class UnpackingFailed(CheckoutFailed):
    """The repository was fetched, but its files could not be written out."""

    in_short = "the repository could not be unpacked"


class ModelFailed(RunFailure):
    """The gateway or the provider behind it gave no answer this time."""

    in_short = "the model gave no answer this time"


class ModelRefused(RunFailure):
    """The gateway or the provider behind it will not answer this call, however often it is made."""

    in_short = "the model will not answer this call"

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class TokenRefused(RunFailure):
    """The gateway did not accept the token that was minted for the call.

    An earlier attempt that was believed dead may have revoked it. The next attempt has its own.
    """

    in_short = "the gateway did not accept the token"


class RunCapReached(RunFailure):
    """The gateway's own cap of what one run may use was reached: no credits change that."""

    in_short = "the run used what the gateway lets one run use"

    def __init__(self) -> None:
        super().__init__(self.in_short, permanent=True)


class RunStopped(RunFailure):
    """Somebody stopped the run, so its work ends and its answer is not posted."""

    in_short = "the run was stopped"

    def __init__(self) -> None:
        super().__init__(self.in_short, permanent=True)


class MustWait(Exception):
    """The call could not be made yet, through no fault of the call itself.

    `retry_after` is how many seconds the gateway said to wait, 0 if it did not say.
    """

    in_short = "the call has to wait"

    def __init__(self, message: str, *, retry_after: int = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class GatewayUnavailable(MustWait):
    """Our own gateway could not be reached or could not decide; no provider was asked."""

    in_short = "the gateway is unavailable"


class AnswerLost(MustWait):
    """Our own gateway went away during the call, so the answer may have been made and paid."""

    in_short = "the gateway went away during the call"


class CreditsHeld(MustWait):
    """Other calls under way hold the credits that this one needs."""

    in_short = "other calls hold the credits"


class OutOfCredits(Exception):
    """The gateway refused a call: the credits for it are used up.

    `cause` is the gateway's reason, such as `user_cap_reached`; empty if it gave none.
    """

    def __init__(self, resets_at: datetime | None = None, cause: str = "") -> None:
        super().__init__("the gateway refused the call: the credits are used up")
        self.resets_at = resets_at
        self.cause = cause
