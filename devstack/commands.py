"""The commands that start Tollgate's processes; `docker-compose.yml` uses the same ones.

Hosts, ports and numbers of processes come from the environment, so the commands are the same on one
machine and in containers.
"""

MIGRATE = ["python", "manage.py", "migrate", "--noinput"]
CHECK_WEB = ["python", "manage.py", "check", "--tag", "web", "--deploy"]
# granian's "backpressure" limits the number of connections. The timeout (milliseconds) ends
# connections that are idle or whose head does not arrive.
WEB = ["granian", "--interface", "asginl", "--http", "1", "--no-ws"]
WEB += ["--http1-header-read-timeout", "15000", "--backpressure", "8192"]
WEB += ["config.asgi:application"]
WORKER = ["python", "manage.py", "run_worker"]
AGENT_WORKER = ["python", "-m", "coding_tasks.agent_worker"]
# Tasks wait for Slack and the database, so threads run them. At INFO, Celery would log a sweep
# every other second. Beat's schedule needs no file, because every entry repeats within minutes.
CELERY = ["celery", "--quiet", "--app", "config.celery", "worker"]
CELERY += ["--pool", "threads", "--concurrency", "8", "--loglevel", "WARNING"]
# Workers don't need to talk to each other, and these features fail when the broker returns.
CELERY += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
BEAT = ["celery", "--quiet", "--app", "config.celery", "beat"]
BEAT += ["--scheduler", "celery.beat:Scheduler"]
RECONCILER = ["python", "manage.py", "run_reconciler"]
SOCKETS = ["python", "manage.py", "slack_socket"]
GATEWAY = ["python", "-m", "gateway"]
DEMO_SLACK = ["python", "-m", "devstack.demo_slack"]
DEMO_MODEL = ["python", "-m", "devstack.demo_model"]
