"""The admin's pages of billing. What they write goes through the modules that publish it."""

from billing.admin import accounts, audit, caps, ledger, limits, quarantine

__all__ = ["accounts", "audit", "caps", "ledger", "limits", "quarantine"]
