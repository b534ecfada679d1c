"""A local Slack: its Web API, its signed events and a page on which a person plays a user."""
