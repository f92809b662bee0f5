# Everything from nothing: python3 (3.11 or newer) and make are enough.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-slow test-full faults lint types install clean

quickstart: .venv/.quickstart  ## pre-train on the embedded example and show what it learned
	$(BIN)/unmask quickstart

test: .venv/.dev  ## the quick tier: at most 5 minutes on 2 cores
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

test-slow: .venv/.dev  ## what the quick tier leaves out
	$(BIN)/python -m pytest -m slow -n auto --dist loadfile

test-full: test test-slow  ## everything: at most 30 minutes

faults: .venv/.dev  ## what a run survives: each case of docs/reliability.md, with pass or fail
	$(BIN)/python tests/faults/table.py

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
