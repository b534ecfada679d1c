# Every command runs through the launcher, which creates .venv/ if needed.
PYTHON ?= python3
# Each process gets whole files, in pytest's order. ARGS="-n 0" runs everything in one process.
# Tests wait for servers more than half of the time, so five processes keep two cores busy.
PROCESSES ?= 5
PARALLEL = --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
# If PYTHON is given and .venv/ has another version, that Python gets a separate environment.
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
	exit 1; }; $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 8))' || { \
	echo "tollgate: $(PYTHON) is too old or does not run. Install Python 3.11 or newer, or name one: make $@ PYTHON=/path/to/python3.12" >&2; \
	exit 1; }; exec $(PYTHON) devstack/launch.py

help: ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

up: ## run the whole system on this machine; Ctrl-C stops it, and the next start keeps its data (RESET=temporal: all but the workflows)
	$(LAUNCH) devstack
export RESET

demo: ## show a tour on a throw-away stack
	$(LAUNCH) devstack.demo

test: ## run the tests (DB=postgres: those with a database, on PostgreSQL; ARGS="-k gate": more arguments for pytest)
	$(LAUNCH) pytest $(PARALLEL) $(ARGS)

lint: ## check format, rules, types, import contracts, migrations and the API schema
	$(LAUNCH) devstack.lint

format: ## format the code and fix what the rules can fix
	@$(LAUNCH) ruff check --fix .
	@$(LAUNCH) ruff format .

bench: ## run the benchmarks
	$(LAUNCH) benchmarks

soak: ## repeat the random tests and the kill tests (MINUTES=30)
	$(LAUNCH) tests.soak $(MINUTES)

mutations: ## make mistakes in a copy and check that tests fail (ARGS=--all: every generated one)
	$(LAUNCH) tests.mutations $(ARGS)

screenshots: ## take the pictures of the docs with this machine's Chromium
	$(LAUNCH) devstack.screenshots

accessibility: ## examine all pages with axe-core, in this machine's Chromium
	$(LAUNCH) devstack.accessibility

agents: ## install Claude Code, Codex and mini-swe-agent for coding tasks (AGENTS=codex: one of them)
	$(LAUNCH) devstack.install_agents $(AGENTS)

test-agents: ## run the installed coding agents against a scripted model
	$(LAUNCH) pytest -n 0 -rs tests/coding_tasks/agents/test_installed_agents.py tests/devstack/test_installed_agents.py $(ARGS)

test-browser: ## run the tests that need a browser, in this machine's Chromium
	$(LAUNCH) devstack.browser_tests

test-deploy: ## check the dashboards, the alerts and the Helm chart with their own tools
	$(LAUNCH) tests.deploy $(ARGS)

LOCK = uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate pyproject.toml

lock: ## update the lock files from pyproject.toml (needs uv)
	@$(LOCK) --group dev --output-file requirements.lock
	@$(LOCK) --constraint requirements.lock --output-file requirements-web.lock
	@$(subst pyproject.toml,,$(LOCK)) --group gateway --group tracing --group sentry --constraint requirements.lock --output-file requirements-gateway.lock
	@$(subst pyproject.toml,,$(LOCK)) --group screenshots --constraint requirements.lock --output-file requirements-screenshots.lock
	@$(subst pyproject.toml,,$(LOCK)) --group mini-swe-agent --output-file requirements-mini-swe-agent.lock
	@$(subst pyproject.toml,,$(LOCK)) --group mutations --constraint requirements.lock --output-file requirements-mutations.lock
	@$(subst pyproject.toml,,$(LOCK)) --group deploy --constraint requirements.lock --output-file requirements-deploy.lock

.PHONY: help up demo test lint format bench soak mutations screenshots accessibility agents test-agents test-browser test-deploy lock
