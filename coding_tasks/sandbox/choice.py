"""Which sandbox the operator chose. No other one ever takes its place."""

from dataclasses import dataclass

from environs import Env, validate

from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from coding_tasks.sandbox.docker.sandbox import Docker
from coding_tasks.sandbox.gvisor.sandbox import GVisor
from coding_tasks.sandbox.host import UNPRIVILEGED
from coding_tasks.sandbox.interface import Sandbox

KINDS = ("bubblewrap", "gvisor", "docker")


@dataclass(frozen=True)
class Choice:
    """What the environment says about the sandbox. `.env.example` describes each variable."""

    kind: str = "bubblewrap"
    uid: int = UNPRIVILEGED
    image: str = ""
    runtime: str = ""

    def sandbox(self) -> Sandbox:
        """Return the sandbox, whether it works here or not."""
        match self.kind:
            case "gvisor":
                return GVisor(self.uid)
            case "docker":
                return Docker(self.image, self.runtime, self.uid)
            case _:
                return Bubblewrap(self.uid)


def from_environment() -> Choice:
    """Return the choice. Raises `environs.EnvValidationError`, which names a wrong variable."""
    env = Env()
    return Choice(
        kind=env.str("SANDBOX", "bubblewrap", validate=validate.OneOf(KINDS)),
        uid=env.int("SANDBOX_UID", UNPRIVILEGED, validate=validate.Range(min=1)),
        image=env.str("SANDBOX_IMAGE", ""),
        runtime=env.str("SANDBOX_RUNTIME", ""),
    )
