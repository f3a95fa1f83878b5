# Two commands set everything up: make quickstart, make test. Each makes the virtual environment if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder \
	--cov --cov-report=term:skip-covered --cov-fail-under=90

.PHONY: quickstart test test-all lint benchmark clean

$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --editable '.[dev]'
	touch $@

quickstart: $(VENV)/ready  ## train, evaluate, export and serve English to Chinese
	$(BIN)/python -m pipelines.quickstart

test: $(VENV)/ready  ## what CI runs, a thread for each of the parallel workers' operations
	TF_NUM_INTRAOP_THREADS=1 $(PYTEST) -m 'not slow'

test-all: $(VENV)/ready  ## with the long ones
	$(PYTEST)

lint: $(VENV)/ready
	$(BIN)/flake8
	$(BIN)/isort --check-only --quiet .
	$(BIN)/mypy

benchmark: $(VENV)/ready  ## the quickstart's corpus against lookup, word by word and no attention
	$(BIN)/python -m benchmarks.quickstart_baselines

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .coverage
