# Each target works alone on a fresh machine: it makes .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The tests compare numbers, not speed: one thread, so that they share a machine
TEST_ENV := OMP_NUM_THREADS=1 MPLBACKEND=Agg

.PHONY: help install run test lint types unit clean

help:
	@echo "make run    fit, sample and report alanine dipeptide into runs/alanine-dipeptide"
	@echo "make test   formatting, lint, types and tests"
	@echo "make clean  remove .venv and caches (runs/ stays)"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "gencg needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1); use make PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first: a dependency must not choose its version
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

run: $(INSTALLED)
	$(BIN)/gencg run alanine-dipeptide --energy-calls 1.6e6 --out runs/alanine-dipeptide

test: lint types unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

unit: $(INSTALLED)
	$(TEST_ENV) $(BIN)/python -m pytest

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
