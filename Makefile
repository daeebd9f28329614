# Every target sets itself up in a virtual environment; nothing but Python and a network is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint format bench check clean

demo: $(VENV)/.examples  ## train the StyleGAN2 of the examples on handwritten digits
	$(BIN)/python -m examples.stylegan2.train --out runs/demo

test: $(VENV)/.test  ## all tests
	$(BIN)/python -m pytest

lint: $(VENV)/.dev  ## formatter and linter, without changing a file, and the type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## let the formatter and the linter change the files
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test  ## time everything; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

check: test lint  ## what CI checks

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/.examples $(VENV)/.test $(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(SETUP) --editable ".[$(patsubst .%,%,$(notdir $@))]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
