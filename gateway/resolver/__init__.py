"""Asking Django: whose credential this is, and what the project may spend."""
