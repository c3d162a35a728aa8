# Each target works alone on a fresh machine: it makes .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The tests compare numbers, not speed: one thread each, so that they share a machine
TEST_ENV := OMP_NUM_THREADS=1 MPLBACKEND=Agg
# Files of tests side by side; 0 for one after the other
WORKERS ?= 2

.PHONY: help install run test lint types unit docs coverage oldest newest dist-check clean

help:
	@echo "make run    fit, sample and report alanine dipeptide into runs/alanine-dipeptide"
	@echo "make test   formatting, lint, types and tests"
	@echo "make docs   the documentation site into build/docs, warnings are errors"
	@echo "make coverage    the tests again, with the lines they do not reach; 90 % or more pass"
	@echo "make oldest      a part of the tests with the oldest supported versions; make newest"
	@echo "make dist-check  wheel and sdist, each installed and run in an empty environment"
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
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

docs: $(INSTALLED)
	GENCG_COMPILE=0 $(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees \
	  -c docs/site . build/docs
	@echo "build/docs/index.html"

# ONLY="tests/test_geometry.py tests/energies" measures a part, without the demand for 90 %
coverage: $(INSTALLED)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
	  --cov --cov-report=term --cov-report=html \
	  $(if $(ONLY),--cov-fail-under=0 $(ONLY))

oldest newest:
	PYTHON="$(PYTHON)" tests/environments/part.sh $@

dist-check:
	PYTHON="$(PYTHON)" tests/environments/dist_check.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
