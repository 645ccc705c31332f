# `make demo` makes a BERT, `make test` tests the code; both make .venv first when it is not there.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-all lint format clean
.DELETE_ON_ERROR:

install: .venv/.installed

# uv only because it installs in seconds what pip installs in a minute.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

test: install
	$(BIN)/python -m pytest -m 'not slow'

test-all: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv runs build
