"""The exchange with the agent workers, where the settings say that it is."""

from pathlib import Path

from django.conf import settings

from coding_tasks.agent_worker.exchange import Exchange


def shared_exchange() -> Exchange:
    """Return the exchange of this deployment."""
    return Exchange(Path(settings.AGENT_EXCHANGE_DIRECTORY))
