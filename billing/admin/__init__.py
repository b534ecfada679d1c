"""Billing's admin pages. They write through the modules that publish the changes."""

from billing.admin import accounts, audit, caps, ledger, limits, quarantine

__all__ = ["accounts", "audit", "caps", "ledger", "limits", "quarantine"]
