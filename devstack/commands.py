"""How each of Tollgate's processes is started; `docker-compose.yml` uses the same commands.

Hosts, ports and numbers of processes come from the environment, so that the commands are the same
on one machine and in containers.
"""

MIGRATE = ["python", "manage.py", "migrate", "--noinput"]
CHECK_WEB = ["python", "manage.py", "check", "--tag", "web", "--deploy"]
# What granian calls backpressure bounds the connections. One that is idle, or whose head does not
# arrive, ends after the timeout (in milliseconds).
WEB = ["granian", "--interface", "asginl", "--http", "1", "--no-ws"]
WEB += ["--http1-header-read-timeout", "15000", "--backpressure", "8192"]
WEB += ["config.asgi:application"]
WORKER = ["python", "manage.py", "run_worker"]
# Tasks wait for Slack and the database, so threads serve them; the schedule needs no file, since
# every entry repeats within minutes. At INFO they would report a sweep every other second.
CELERY = ["celery", "--quiet", "--app", "config.celery", "worker"]
CELERY += ["--pool", "threads", "--concurrency", "8", "--loglevel", "WARNING"]
# Workers have nothing to tell each other, and fail to when the broker comes back.
CELERY += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
BEAT = ["celery", "--quiet", "--app", "config.celery", "beat"]
BEAT += ["--scheduler", "celery.beat:Scheduler"]
RECONCILER = ["python", "manage.py", "run_reconciler"]
GATEWAY = ["python", "-m", "gateway"]
DEMO_SLACK = ["python", "-m", "devstack.demo_slack"]
DEMO_MODEL = ["python", "-m", "devstack.demo_model"]
