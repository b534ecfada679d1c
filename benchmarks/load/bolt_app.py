"""The smallest bot that refuses: slack-bolt on Django and SQLite.

It records each mention, answers Slack, and says in the thread that there are no credits.
Environment: SLACK_SIGNING_SECRET, SLACK_API_URL, BOLT_DATABASE. `python bolt_app.py migrate` makes
the table.
"""

import os
import sys

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, models
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["BOLT_DATABASE"],
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    },
    ROOT_URLCONF=__name__,
    SECRET_KEY="bench",
    USE_TZ=True,
)
django.setup()

from slack_bolt import App  # noqa: E402 - both need Django's settings
from slack_bolt.adapter.django import SlackRequestHandler  # noqa: E402
from slack_sdk import WebClient  # noqa: E402


class Mention(models.Model):
    """A mention, as bolt's listener records it."""

    event_id = models.CharField(max_length=40, unique=True)
    channel_id = models.CharField(max_length=40)
    ts = models.CharField(max_length=40)
    text = models.TextField()

    class Meta:
        app_label = "bolt"

    def __str__(self) -> str:
        return self.event_id


app = App(
    client=WebClient("xoxb-bench", base_url=os.environ["SLACK_API_URL"]),
    signing_secret=os.environ["SLACK_SIGNING_SECRET"],
    token_verification_enabled=False,
    process_before_response=True,
)


def record(body, event) -> None:  # type: ignore[no-untyped-def]
    """Record the mention before Slack gets its answer, so that it can't be lost."""
    Mention.objects.create(
        event_id=body["event_id"], channel_id=event["channel"], ts=event["ts"], text=event["text"]
    )


def refuse(event, say) -> None:  # type: ignore[no-untyped-def]
    """Refuse the mention in its Slack thread. Bolt runs this in a thread of the process."""
    say("Your team's credits are used up.", thread_ts=event["ts"])


# https://docs.slack.dev/tools/bolt-python/concepts/lazy-listeners
app.event("app_mention")(ack=record, lazy=[refuse])


urlpatterns = [
    path("", lambda _: HttpResponse()),
    path("slack/events/", csrf_exempt(SlackRequestHandler(app).handle)),
]
application = get_wsgi_application()

if __name__ == "__main__" and sys.argv[1:] == ["migrate"]:
    with connection.schema_editor() as editor:
        editor.create_model(Mention)
