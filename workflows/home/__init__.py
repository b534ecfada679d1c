"""The app's Home tab in Slack: a person's own work, the team's credits, and what they may do."""
