"""The pages of Slack threads: what was asked, what was refused and why, and what it cost."""
