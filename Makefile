# One door. Everything runs through the launcher, which makes .venv/ when it has to.
PYTHON ?= $(shell command -v python3 || command -v python || echo python3-is-missing)
LAUNCH = @$(PYTHON) devstack/launch.py

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

up: ## the whole system on this machine; Ctrl-C stops it
	$(LAUNCH) devstack

demo: ## a tour on a throw-away stack
	$(LAUNCH) devstack.demo

test: ## the test suite (DB=postgres runs it on PostgreSQL)
	$(LAUNCH) pytest

lint: ## format, types, import contracts
	$(LAUNCH) devstack.lint

bench: ## the benchmarks
	$(LAUNCH) benchmarks

.PHONY: help up demo test lint bench
