"""The mutations that may survive, each with its reason: `survivors.toml`."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("survivors.toml")
Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Survivor:
    """A mutation that no test can notice, or that none has to, and why."""

    file: str
    function: str
    before: str
    after: str
    reason: str

    @property
    def key(self) -> Key:
        """Return what identifies the mutation, like `Mutation.key`."""
        return self.file, self.function, self.before, self.after


def accepted() -> list[Survivor]:
    """Return every survivor of the file."""
    found = []
    for group in tomllib.loads(FILE.read_text()).get("survivors", []):
        for one in group["mutations"]:
            survivor = Survivor(
                group["file"],
                one.get("function", ""),
                one["before"],
                one["after"],
                one.get("reason", group.get("reason", "")),
            )
            found.append(survivor)
    return found
