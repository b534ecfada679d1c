"""Deciding about what people write: mentions, replies, follow-ups and orders to stop."""
