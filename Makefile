# Everything from nothing: python3 (3.11 or newer) and make are enough.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-full lint types install clean

quickstart: .venv/.quickstart  ## pre-train on the embedded example and show what it learned
	$(BIN)/unmask quickstart

test: .venv/.dev  ## the quick tier: at most 5 minutes on 2 cores
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

test-full: .venv/.dev  ## everything: at most 30 minutes
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/.dev
	$(BIN)/mypy

install: .venv/.dev  ## the command, its extras and what the tests need, in .venv

.venv/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unmask needs Python 3.11 or newer: set PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/.quickstart: .venv/.python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[quickstart]'
	touch $@

.venv/.dev: .venv/.python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ .venv/.quickstart

clean:
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis
