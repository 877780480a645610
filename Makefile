# Every target is one line over `serverless`, the command that the package installs.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run ui test lint format lock clean

help: ## what there is to do
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

run: .venv/run ## run the whole pipeline on this machine
	@$(BIN)/serverless run

ui: .venv/run ## open the Dagster UI on http://127.0.0.1:3000
	@$(BIN)/serverless ui

test: .venv/dev ## test it
	$(BIN)/pytest

lint: .venv/dev ## check format, style, types and definitions
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/sqlfmt --check -q dbt_project
	$(BIN)/dagster definitions validate -w workspace.yaml && $(BIN)/dg check defs

format: .venv/dev ## put the code into its format
	$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/sqlfmt -q dbt_project

lock: ## renew the lock files from pyproject.toml
	$(BIN)/uv pip compile $(LOCK) pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile $(LOCK) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock

clean: ## delete all state: warehouse, artifacts, runs
	@$(BIN)/serverless clean --yes

LOCK := -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

.venv/uv:
	@echo "Setting up .venv (once, about a minute)"
	@$(PYTHON) -m venv .venv && $(BIN)/pip install -q --require-hashes -r requirements-uv.lock && touch $@

.venv/run: .venv/uv requirements.lock pyproject.toml
	@$(BIN)/uv pip install -q --require-hashes -r requirements.lock && $(BIN)/uv pip install -q --no-deps -e . && touch $@
	@$(BIN)/python -m compileall -q $(BIN)/../lib >/dev/null 2>&1 || true

.venv/dev: .venv/run requirements-dev.lock
	@$(BIN)/uv pip install -q --require-hashes -r requirements-dev.lock && touch $@
