"""One generated mutation: a small mistake in one place of one file."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

CHOSEN_FREELY = 1000
"""From here on, numbers are sizes and durations. One more or less makes no difference."""


@dataclass(frozen=True)
class Mutation:
    """Replace the file's text by `mutated`. Only the code from `first` to `last` line differs."""

    file: str
    function: str  # its qualified name; "" at the top level of the file and in Lua
    first: int
    last: int
    before: str
    after: str
    mutated: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return what identifies the mutation even when lines above it move."""
        return self.file, self.function, self.before, self.after

    @property
    def place(self) -> str:
        """Return where it is: file and line."""
        return f"{self.file}:{self.first}"

    @cached_property
    def digest(self) -> str:
        """Return a digest of the file's mutated text."""
        return sha256(f"{self.file}\n{self.mutated}".encode()).hexdigest()[:16]


def mutation_of(file: str, function: str, original: str, mutated: str) -> Mutation | None:
    """Return the mutation between two texts of a file; None if only white space differs."""
    old, new = original.splitlines(), mutated.splitlines()
    top = 0
    while top < min(len(old), len(new)) and old[top] == new[top]:
        top += 1
    bottom = 0
    while bottom < min(len(old), len(new)) - top and old[-1 - bottom] == new[-1 - bottom]:
        bottom += 1
    before = _joined(old[top : len(old) - bottom])
    after = _joined(new[top : len(new) - bottom])
    if before == after:
        return None
    return Mutation(
        file, function, top + 1, max(top + 1, len(old) - bottom), before, after, mutated
    )


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
