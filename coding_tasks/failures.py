"""What can end a run of a task without an answer. `permanent` says whether another try may help."""

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
    """The repository exceeds the bounds of what is unpacked, however often it is fetched."""

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


class RunCapReached(RunFailure):
    """The gateway's own cap of what one run may use was reached: no credits change that."""

    in_short = "the run used what the gateway lets one run use"

    def __init__(self) -> None:
        super().__init__(self.in_short, permanent=True)


class RunStopped(RunFailure):
    """Somebody stopped the run: nothing more is done for it, and its answer is not posted."""

    in_short = "the run was stopped"

    def __init__(self) -> None:
        super().__init__(self.in_short, permanent=True)


class OutOfCredits(Exception):
    """The gateway refused a call: the credits for it are used up (429).

    `cause` is the gateway's word for why, such as `user_cap_reached`; empty where it gave none.
    """

    def __init__(self, resets_at: datetime | None = None, cause: str = "") -> None:
        super().__init__("the gateway refused the call: the credits are used up")
        self.resets_at = resets_at
        self.cause = cause
