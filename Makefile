# Every target works in a fresh clone: it makes a virtual environment, installs pinned versions and runs. Only `gpu` uses
# the environment that is there.
PYTHON ?= python3
VENV ?= .venv
OUT ?= build/gpu
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: docs figures example test lint format install test-slow test-newest test-oldest benchmark benchmarks gpu experiments fashion clean help
.DEFAULT_GOAL := help

help:
	@echo "make example    node perturbation against SGD on MNIST: a table and example_training.png"
	@echo "make test       the tests (with NODEPERT_DATA_DIR=DIR also those on real data sets)"
	@echo "make test-slow  the tests that take minutes: every benchmark, every kind of replica, the rules' pages, random search"
	@echo "make test-newest  the tests with the newest versions of everything (make test-newest PYTHON=python3.13)"
	@echo "make test-oldest  the tests of the library with the oldest versions that it allows (Python 3.11)"
	@echo "make lint       ruff and pyright"
	@echo "make benchmark  time of a step of np relative to sgd, per network"
	@echo "make benchmarks all benchmarks (half an hour; MNIST from NODEPERT_DATA_DIR=DIR)"
	@echo "make gpu        correctness, precision, speed and memory on a GPU, in 8 minutes, by the JAX of PYTHON; installs nothing"
	@echo "make experiments  every experiment at --scale small, into docs/figures (half an hour; skips complete parts)"
	@echo "make figures    the figures of the rules' pages and of the concepts, from the saved table"
	@echo "make fashion    every rule on Fashion-MNIST, for docs/experiments/fashion.md (half an hour)"
	@echo "make docs       the documentation in build/site/index.html; checks its links, runs its code and notebooks"
	@echo "make install    the environment in $(VENV); then: source $(VENV)/bin/activate"

example: $(VENV)/.installed
	$(BIN)/python example.py

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 -m slow

test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager -e ".[dev]"
	.venv-newest/bin/python -m pytest -n 2 --dist worksteal

test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet -c constraints-oldest.txt -e ".[flax,equinox,slurm,parquet,report]" \
		pytest pytest-xdist hypothesis
	.venv-oldest/bin/python -m pytest -n 2 --dist worksteal \
		tests/contract tests/rules tests/models tests/registry tests/data tests/training tests/diagnostics

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/.installed
	$(BIN)/python benchmarks/step.py

benchmarks: $(VENV)/.installed
	for name in step epoch replicas memory speedrun rates; do $(BIN)/python benchmarks/$$name.py || exit 1; done

gpu:
	PYTHONPATH=.:$$PYTHONPATH $(PYTHON) benchmarks/gpu.py --out $(OUT)

experiments: $(VENV)/.installed-dev
	for name in $$($(BIN)/python -c "from nodepert.registry import names; print(*names('experiment'))"); do \
		$(BIN)/nodepert experiment $$name --scale small --out docs/figures || exit 1; done
	$(BIN)/python -m pytest -q tests/experiments/test_experiments.py -k findings_hold

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	cd build/site && ../../$(BIN)/linkchecker --no-status --no-robots index.html
	$(BIN)/python -m pytest -n 2 -m "docs and not slow" tests/docs

figures: $(VENV)/.installed-dev
	$(BIN)/python docs/scripts/rule_figures.py
	$(BIN)/python docs/scripts/estimators.py

fashion: $(VENV)/.installed
	$(BIN)/python docs/scripts/fashion.py

install: $(VENV)/.installed-dev

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "NodePert needs Python 3.11 or newer; give its path, for example: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch $@
