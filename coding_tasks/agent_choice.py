"""Which agents this server knows, and which one a request gets."""

from django.conf import settings

from coding_tasks.agents.registry import registry

READER = "reader"
"""The agent that reads files and answers with one call of a model. It needs no sandbox."""


def known_agents() -> frozenset[str]:
    """Return the names that a mention or a project can choose."""
    return frozenset(registry(settings.AGENT_COMMANDS)) | {READER}
