"""What one process tests."""

from dataclasses import dataclass

from tests.mutations.mutation import Mutation


@dataclass(frozen=True)
class Job:
    """Mutations, and the test files that must notice them.

    `files` are the modules whose lines are watched. `seconds` is after how long no further mutation
    begins. `known` is a file that remembers what the tests run, for later jobs.
    """

    mutations: list[Mutation]
    files: list[str]
    tests: list[str]
    seconds: float
    known: str
