"""Which agents this server knows, and which models they use."""

from django.conf import settings

from coding_tasks.agents.description import GatewayAPI
from coding_tasks.agents.registry import registry

READER = "reader"
"""The agent that reads files and answers with one call of a model. It needs no sandbox."""


def default_model(agent: str) -> str:
    """Return the server's model for an agent, which fits the API that the agent speaks."""
    speaks = registry(settings.AGENT_COMMANDS)[agent].api
    model: str = (
        settings.AGENT_MODEL if speaks is GatewayAPI.MESSAGES else settings.AGENT_OPENAI_MODEL
    )
    return model


def known_agents() -> frozenset[str]:
    """Return the names that a mention or a project can choose."""
    return frozenset(registry(settings.AGENT_COMMANDS)) | {READER}
