# Three images: `django` for web, workers, Celery and reconciler, `gateway` for the LLM gateway, which
# contains no Django, and `sandbox` for the commands of agents, if SANDBOX=docker.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 tollgate
WORKDIR /app

FROM base AS django
# Coding tasks clone repositories over https and ssh.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git openssh-client \
 && rm -rf /var/lib/apt/lists/*
COPY requirements-web.lock ./
RUN pip install --require-hashes --requirement requirements-web.lock
COPY manage.py ./
COPY config config
COPY console console
COPY slack_bot slack_bot
COPY workflows workflows
COPY coding_tasks coding_tasks
COPY billing billing
COPY quota quota
COPY projects projects
RUN python -m compileall -q . && install -d -o tollgate /var/lib/tollgate
USER tollgate
ENV GRANIAN_HOST=0.0.0.0 GRANIAN_PORT=8000
EXPOSE 8000
CMD ["granian", "--interface", "asginl", "--http", "1", "--no-ws", "--http1-header-read-timeout", "15000", "--backpressure", "8192", "config.asgi:application"]

FROM base AS gateway
COPY requirements-gateway.lock ./
RUN pip install --require-hashes --requirement requirements-gateway.lock
COPY gateway gateway
RUN python -m compileall -q .
USER tollgate
ENV GATEWAY_HOST=0.0.0.0 GATEWAY_PORT=8100
EXPOSE 8100
CMD ["python", "-m", "gateway"]

FROM python:3.11-slim-bookworm AS sandbox
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/local /opt/python
