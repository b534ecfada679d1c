"""Slack as the bot calls it: clients, posting, messages, and who may use the bot."""
