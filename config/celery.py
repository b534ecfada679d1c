"""The Celery application and its whole beat schedule.

No work depends on the broker's memory. Rows in the database say what there is to do, tasks only
make it happen sooner, and the sweeps below find whatever a flushed or dead broker lost.
"""

import logging.config
import os
import sys
from typing import Any

import django.db
import redis
import structlog
from celery import Celery
from celery import Task as CeleryTask
from celery.signals import setup_logging, task_postrun, task_prerun, worker_init
from django.conf import settings
from django.db import InterfaceError, OperationalError
from kombu.transport.virtual import QoS

from projects.metrics_server import serve_metrics

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# Celery would run Django's system checks, load every page for them, and ignore what they find.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

log = structlog.get_logger(__name__)

# At shutdown, don't put unfinished messages back: a sweep does their work, and putting them back
# over a broken connection would only fail.
QoS.restore_at_shutdown = False


class Task(CeleryTask[Any, Any]):
    """A task that logs an unavailable store in one line, and any other failure as an error."""

    throws = (OperationalError, InterfaceError, redis.ConnectionError, redis.TimeoutError)

    def on_failure(self, exc: Exception, *_arguments: Any) -> None:
        """Log which store was unavailable. The next sweep does the work."""
        if isinstance(exc, self.throws):
            log.warning(
                "a task is left to the next sweep",
                task=self.name,
                error=f"{type(exc).__name__}: {exc}"[:300],
            )


app = Celery("tollgate", task_cls=Task)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# Celery would close the database connection before and after every task. Opening one costs SQLite
# 1 ms, and PostgreSQL a process.
app.conf.update(CELERY_DB_REUSE_MAX=sys.maxsize)


@task_prerun.connect
@task_postrun.connect
def close_old_connections(sender: Task, **_kwargs: Any) -> None:
    """Treat connections as between requests: close those that are broken or too old.

    A task that is called like a function (`apply`) leaves its caller's connection alone.
    """
    if not sender.request.is_eager:
        django.db.close_old_connections()


@setup_logging.connect
def configure_logging(**_kwargs: Any) -> None:
    """Log like every other process. Celery's own logging would not mask secrets."""
    logging.config.dictConfig(settings.LOGGING)


@worker_init.connect
def serve_worker_metrics(**_kwargs: Any) -> None:
    """Serve the metrics of a worker. Beat counts nothing."""
    serve_metrics()


app.conf.beat_schedule = {
    "decide every account": {
        "task": "billing.tasks.sweep_accounts",
        "schedule": 60.0,
        "options": {"expires": 60.0},
    },
    "decide due accounts": {
        "task": "billing.tasks.sweep_due_accounts",
        "schedule": 2.0,
        "options": {"expires": 2.0},
    },
    "verify accounts": {
        "task": "billing.tasks.verify_accounts",
        "schedule": 60.0,
        "options": {"expires": 60.0},
    },
    "report usage": {"task": "billing.tasks.report_usage", "schedule": 3600.0},
    "sum usage": {
        "task": "billing.tasks.sum_usage",
        "schedule": 60.0,
        "options": {"expires": 60.0},
    },
    "start pending mentions": {"task": "workflows.tasks.start_pending_mentions", "schedule": 5.0},
    "start pending tasks": {"task": "workflows.tasks.start_pending_tasks", "schedule": 5.0},
    "deliver pending notices": {"task": "workflows.tasks.deliver_pending_notices", "schedule": 5.0},
    "publish due homes": {"task": "workflows.tasks.publish_due_homes", "schedule": 5.0},
    "forget old rows": {"task": "workflows.tasks.forget_old_rows", "schedule": 3600.0},
    "show agent sessions": {
        "task": "workflows.tasks.show_agent_sessions",
        "schedule": 2.0,
        "options": {"expires": 2.0},
    },
    "show progress": {
        "task": "workflows.tasks.show_progress",
        "schedule": 2.0,
        "options": {"expires": 2.0},
    },
    "publish confirmed changes": {
        "task": "workflows.tasks.publish_all_confirmed",
        "schedule": 30.0,
    },
    "undo changes": {"task": "workflows.tasks.undo_all", "schedule": 10.0},
    "announce credits": {"task": "workflows.tasks.announce_credits", "schedule": 5.0},
    "deliver pending follow-ups": {
        "task": "workflows.tasks.deliver_pending_follow_ups",
        "schedule": 5.0,
    },
    "settle quotes": {"task": "workflows.tasks.settle_quotes", "schedule": 5.0},
    "match replies": {"task": "workflows.tasks.match_replies", "schedule": 5.0},
    "wake paused runs": {
        "task": "workflows.tasks.wake_paused_runs",
        "schedule": 2.0,
        "options": {"expires": 2.0},
    },
    "clear up terminated workflows": {
        "task": "workflows.tasks.clear_up_terminated_workflows",
        "schedule": 30.0,
    },
    "renew Slack tokens": {
        "task": "workflows.tasks.refresh_slack_tokens",
        "schedule": 30.0,
        "options": {"expires": 30.0},
    },
    "look for workflows": {
        "task": "workflows.tasks.look_for_workflows",
        "schedule": 60.0,
    },
    "look up Slack names": {
        "task": "workflows.tasks.look_up_slack_names",
        "schedule": 10.0,
        "options": {"expires": 10.0},
    },
    "clear expired credentials": {
        "task": "projects.tasks.clear_expired_credentials",
        "schedule": 600.0,
    },
}
