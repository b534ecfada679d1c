"""How each of Tollgate's processes is started; `docker-compose.yml` uses the same commands.

Hosts, ports and numbers of processes come from the environment, so that the commands are the same
on one machine and in containers.
"""

MIGRATE = ["python", "manage.py", "migrate", "--noinput"]
WEB = ["granian", "--interface", "wsgi", "--no-ws", "config.wsgi:application"]
WORKER = ["python", "manage.py", "run_worker"]
# Tasks wait for Slack and the database, so threads serve them; the schedule needs no file, since
# every entry repeats within minutes.
CELERY = ["celery", "--app", "config.celery", "worker", "--pool", "threads", "--concurrency", "8"]
BEAT = ["celery", "--app", "config.celery", "beat", "--scheduler", "celery.beat:Scheduler"]
RECONCILER = ["python", "manage.py", "run_reconciler"]
GATEWAY = ["python", "-m", "gateway"]
DEMO_SLACK = ["python", "-m", "devstack.demo_slack"]
DEMO_MODEL = ["python", "-m", "devstack.demo_model"]
