"""Finishing what failures leave behind."""
