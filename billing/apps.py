"""The application configuration of `billing`."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    """Usage, credits, limits and decisions."""

    name = "billing"
    verbose_name = "Credits"

    def ready(self) -> None:
        """Register the decision function, because quota doesn't import billing."""
        from billing.decisions.enforcement import decide_account
        from quota import decider

        decider.register(decide_account)
