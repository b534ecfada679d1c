"""Runs hostile code: an agent's commands on a tree, with no network but the gateway's door."""
