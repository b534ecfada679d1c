"""Asking billing to decide again about an account whose state has stopped holding.

Quota knows nothing of billing: `settings.QUOTA_DECIDER` names the function, which takes the
organization's id and the resource, decides now and publishes.
"""

from collections.abc import Callable
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string


def decide_again(organization_id: UUID, resource: str) -> None:
    """Decide about the account and publish; raises whatever the decision raises."""
    decider: Callable[[UUID, str], object] = import_string(settings.QUOTA_DECIDER)
    decider(organization_id, resource)
