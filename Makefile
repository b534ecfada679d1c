# One door. Everything runs through the launcher, which makes .venv/ when it has to.
PYTHON ?= python3
# Whole files go to a process; the order is pytest's own. ARGS="-n 0" runs all in one process.
# Tests wait for servers a third of the time: three processes keep two cores busy.
PROCESSES ?= 3
PARALLEL = --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
# A Python that is named beside an environment of another version gets one of its own.
MINOR = -c 'import sys; print(sys.version_info[:2])' 2>/dev/null
ifeq ($(origin PYTHON),command line)
ifneq ($(wildcard .venv/bin/python),)
ifneq ($(shell $(PYTHON) $(MINOR)),$(shell .venv/bin/python $(MINOR)))
export TOLLGATE_VENV ?= .venv-$(notdir $(PYTHON))
endif
endif
endif
LAUNCH = @command -v $(PYTHON) >/dev/null || { \
	echo "tollgate: $(PYTHON) is missing. Install Python 3.11 or newer, or name one: make $@ PYTHON=/path/to/python3.12" >&2; \
	exit 1; }; exec $(PYTHON) devstack/launch.py

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

up: ## the whole system on this machine; Ctrl-C stops it, the next one goes on with the same data
	$(LAUNCH) devstack

demo: ## a tour on a throw-away stack
	$(LAUNCH) devstack.demo

test: ## the test suite (DB=postgres: on PostgreSQL; ARGS="-k gate": what else pytest takes)
	$(LAUNCH) pytest $(PARALLEL) $(ARGS)

lint: ## format, types, import contracts, migrations, API schema
	$(LAUNCH) devstack.lint

format: ## the code, formatted, and what the rules can mend
	@$(LAUNCH) ruff check --fix .
	@$(LAUNCH) ruff format .

bench: ## the benchmarks
	$(LAUNCH) benchmarks

soak: ## what is random or gets killed, tried again and again (MINUTES=30)
	$(LAUNCH) tests.soak $(MINUTES)

mutations: ## the mistakes of others, made in a copy: does each turn its test red?
	$(LAUNCH) tests.mutations

screenshots: ## the pictures of the docs, made with this machine's Chromium
	$(LAUNCH) devstack.screenshots

LOCK = uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate pyproject.toml

lock: ## the lock files anew, from pyproject.toml (needs uv)
	@$(LOCK) --group dev --output-file requirements.lock
	@$(LOCK) --constraint requirements.lock --output-file requirements-web.lock
	@$(subst pyproject.toml,,$(LOCK)) --group gateway --group tracing --constraint requirements.lock --output-file requirements-gateway.lock
	@$(subst pyproject.toml,,$(LOCK)) --group screenshots --constraint requirements.lock --output-file requirements-screenshots.lock

.PHONY: help up demo test lint format bench soak mutations screenshots lock
