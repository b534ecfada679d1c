"""State of Slack for the setup page: what arrived last, and which processes are connected."""

from datetime import timedelta

from django.db import models

SEEN_WITHIN = timedelta(seconds=45)
"""A process that listens reports every fifteen seconds."""


class SlackArrival(models.Model):
    """When something of one kind last came from Slack. Exact to a minute."""

    class Way(models.TextChoices):
        HTTP = "http", "over HTTP"
        SOCKET = "socket", "over a socket"
        WRONG_SIGNATURE = "wrong", "with a wrong signature"

    way = models.CharField(max_length=10, choices=Way.choices)
    kind = models.CharField(max_length=20)
    at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["way", "kind"], name="slack_arrival_way_kind_unique")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.get_way_display()}"


class SlackSocket(models.Model):
    """A process that listens in Socket Mode, as it last reported."""

    id = models.UUIDField(primary_key=True)
    process = models.CharField(max_length=200)
    seen_at = models.DateTimeField()
    connected_since = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(
        max_length=100, blank=True, default="", help_text="Why it is not connected."
    )

    def __str__(self) -> str:
        return self.process
