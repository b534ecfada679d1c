"""The beat schedule names tasks that exist."""

from config.celery import app


def test_every_entry_of_the_schedule_is_a_task():
    app.loader.import_default_modules()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)
