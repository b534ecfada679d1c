"""The Celery application and its whole beat schedule.

Nothing depends on the broker's memory: tasks only hasten what rows in the database already say,
and the sweeps below find whatever a flushed or dead broker lost.
"""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("tollgate")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

app.conf.beat_schedule = {
    "decide every account": {"task": "billing.tasks.sweep_accounts", "schedule": 60.0},
    "decide due accounts": {
        "task": "billing.tasks.sweep_due_accounts",
        "schedule": 2.0,
        "options": {"expires": 2.0},
    },
    "start pending mentions": {"task": "workflows.tasks.start_pending_mentions", "schedule": 5.0},
    "deliver pending denials": {"task": "workflows.tasks.deliver_pending_denials", "schedule": 5.0},
    "deliver pending follow-ups": {
        "task": "workflows.tasks.deliver_pending_follow_ups",
        "schedule": 5.0,
    },
}
