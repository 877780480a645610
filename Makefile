# Every target is one line over `serverless`, the command that the package installs.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
# Without it, every process of the tests compiles all of them anew, for ten seconds.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help run ui plan doctor slim-ci deploy-modal test test-ui pictures test-slow test-faults test-gcp test-live try-gcp bench bench-load bench-build bench-whole-run bench-second-run bench-day-more bench-ui bench-forecast bench-prophet bench-forecast-by-grain bench-many-series bench-many-models lint format lock clean

help: ## what there is to do
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

run: .venv/run ## run the whole pipeline on this machine
	@$(BIN)/serverless run

ui: .venv/run ## open the Dagster UI on http://127.0.0.1:3000
	@$(BIN)/serverless ui

plan: .venv/run ## say what a run would do and why
	@$(BIN)/serverless plan

doctor: .venv/run ## say what a run would use, and what is wrong with it
	@$(BIN)/serverless doctor

slim-ci: .venv/run ## build and test the models that differ from production, and leave nothing
	@$(BIN)/serverless slim-ci

deploy-modal: .venv/run ## deploy the forecast's worker to Modal
	@$(BIN)/serverless deploy-modal

test: .venv/dev ## test it
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-ui: .venv/dev ## test the report and the Dagster UI in a browser, if there is chromium
	$(BIN)/pytest -n 2 --dist loadfile -m "ui and not gcp"

pictures: .venv/dev ## take the pictures in docs/ again, in a browser
	PICTURES=1 $(BIN)/pytest -m ui tests/ui/test_asset_pages.py tests/ui/test_automation_pages.py tests/ui/test_choices.py

test-slow: .venv/dev ## test that nothing runs twice, by random edits, and that everything can be stopped
	$(BIN)/pytest -n 2 --dist worksteal -m "slow and not gcp"

test-faults: .venv/dev ## test it with kills, faulty sources, damage, full disks (LONG=1 or ROUNDS=n: more)
	FAULT_ROUNDS=$(or $(ROUNDS),$(if $(LONG),5,1)) $(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder -m faults tests/faults

test-gcp: .venv/dev .venv-emulator/ready ## test the cloud's part against servers on this machine
	$(BIN)/pytest -n 2 --dist loadfile -m gcp

test-live: .venv/dev ## test the cloud's part with your accounts, if their variables are set
	$(BIN)/pytest -m live -rs

try-gcp: .venv/dev .venv-emulator/ready ## run the pipeline as in the cloud, against servers on this machine
	@$(BIN)/python -m tests.services $(BIN)/serverless run

bench-load: .venv/run ## what loading raw tables costs beside curl with DuckDB, dlt and pandas
	@$(BIN)/python benchmarks/loading.py

bench: bench-load bench-build bench-whole-run ## what it costs beside the plain tools, into benchmarks/results

bench-build: .venv/dev .venv-prefect/ready ## what building the models costs beside dbt, dagster-dbt and Prefect
	@$(BIN)/python benchmarks/building.py

bench-whole-run: .venv/dev ## what a first run costs beside a plain script
	@$(BIN)/python benchmarks/whole_run.py

bench-second-run: .venv/run ## what a run costs when nothing changed
	@$(BIN)/python benchmarks/second_run.py

bench-day-more: .venv/run ## what a run costs after a static file grew by a day
	@$(BIN)/python benchmarks/day_more.py

bench-ui: .venv/dev ## how long one waits in the UI, with a browser
	@PYTHONPATH=. $(BIN)/python benchmarks/ui.py

bench-forecast: .venv-bench/ready ## how good the forecast is, beside its peers (half an hour)
	@.venv-bench/bin/python benchmarks/forecast.py

bench-prophet: .venv/run ## what Prophet adds to the forecast, and what it costs
	@$(BIN)/python benchmarks/forecast.py --methods ours "no Prophet"

bench-forecast-by-grain: .venv/run ## how good it is by week and month, beside the naives
	@$(BIN)/python benchmarks/forecast_by_grain.py

bench-many-series: .venv/run ## what many series cost in one call, and one by one
	@$(BIN)/python benchmarks/many_series.py

bench-many-models: .venv/run ## what a large dbt project costs when nothing or one model changed
	@PYTHONPATH=. $(BIN)/python benchmarks/many_models.py

lint: .venv/dev ## check format, style, types and definitions
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/sqlfmt --check -q dbt_project
	$(BIN)/dg check defs

format: .venv/dev ## put the code into its format
	$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/sqlfmt -q dbt_project

lock: ## renew the lock files from pyproject.toml
	$(BIN)/uv pip compile $(LOCK) pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile $(LOCK) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile $(LOCK) $(NOT_ON_A_WORKER) modal_forecast/requirements.in -c requirements.lock -o modal_forecast/requirements.lock
	$(BIN)/uv pip compile $(LOCK) tests/services/requirements-bqemulator.in -o tests/services/requirements-bqemulator.lock
	$(BIN)/uv pip compile $(LOCK) benchmarks/requirements.in -c requirements.lock -o benchmarks/requirements.lock
	grep -E '^(dbt-|duckdb)' requirements.lock | sed 's/ \\//' > .venv/dbt.in
	$(BIN)/uv pip compile $(LOCK) benchmarks/requirements-prefect.in -c .venv/dbt.in -o benchmarks/requirements-prefect.lock

clean: ## delete all state: warehouse, artifacts, runs
	@$(BIN)/serverless clean --yes

LOCK := -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
# Prophet asks for what it draws with; a worker draws nothing (modal_forecast/worker.py).
NOT_ON_A_WORKER := $(addprefix --no-emit-package=,matplotlib contourpy cycler fonttools kiwisolver pillow pyparsing)

# pyproject.toml's requires-python. Asked first: pip would install for minutes before it refuses.
.venv/uv:
	@for python in $(PYTHON) $(wildcard $(BIN)/python); do \
	    $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && continue; \
	    version=$$($$python -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])' 2>/dev/null); \
	    case $$python in \
	        $(BIN)/*) advice="delete .venv, then try again.";; \
	        *) advice="choose one that you have: make $(or $(firstword $(MAKECMDGOALS)),run) PYTHON=python3.11";; \
	    esac; \
	    echo "This needs Python 3.11 or 3.12, and $$python is $${version:-not there}: $$advice" >&2; exit 1; \
	done
	@echo "Setting up .venv (once, about a minute)"
	@$(PYTHON) -m venv .venv && $(BIN)/pip install -q --require-hashes -r requirements-uv.lock && touch $@

.venv/run: .venv/uv requirements.lock pyproject.toml
	@$(BIN)/uv pip install -q --require-hashes -r requirements.lock && $(BIN)/uv pip install -q --no-deps -e . && touch $@
	@$(BIN)/python -m compileall -q $(BIN)/../lib >/dev/null 2>&1 || true

.venv/dev: .venv/run requirements-dev.lock
	@$(BIN)/uv pip install -q --require-hashes -r requirements-dev.lock && touch $@

.venv-emulator/ready: .venv/uv tests/services/requirements-bqemulator.lock
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-emulator
	@$(BIN)/uv pip install -q --python .venv-emulator/bin/python --require-hashes -r tests/services/requirements-bqemulator.lock && touch $@

.venv-prefect/ready: .venv/uv benchmarks/requirements-prefect.lock
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-prefect
	@$(BIN)/uv pip install -q --compile-bytecode --python .venv-prefect/bin/python --require-hashes -r benchmarks/requirements-prefect.lock && touch $@

.venv-bench/ready: .venv/uv benchmarks/requirements.lock
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-bench
	@$(BIN)/uv pip install -q --compile-bytecode --python .venv-bench/bin/python --require-hashes -r benchmarks/requirements.lock && touch $@
