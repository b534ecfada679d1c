"""The pages of an organization's usage."""
