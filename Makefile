# Every target is a few plain commands, printed as they run. Without make: see README.md.
SHELL := /bin/sh
VENV := .venv
ACTIVATE := . $(VENV)/bin/activate &&
READY := $(VENV)/.ready
LOCK := uv pip compile --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-header --no-annotate --quiet

# The first Python of a supported version that really runs (a pyenv shim may not). `make test PYTHON=...` names another.
SUPPORTED := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
PYTHON ?= $(or $(shell for p in python3.13 python3.12 python3.11; do $$p $(SUPPORTED) && echo $$p && break; done),python3)
# Debian's Python without python3-venv has no ensurepip: there, its own pip fills the environment from outside.
ENSUREPIP = $(shell $(PYTHON) -c 'import ensurepip' 2>/dev/null && echo yes)
PIP = $(if $(ENSUREPIP),$(VENV)/bin/python -m pip,$(PYTHON) -m pip --python $(VENV)/bin/python)

.DEFAULT_GOAL := help
.PHONY: help tune test lint format ui serve results race bench-train lock

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "make %-11s %s\n", $$1, $$2 }'

tune: $(READY) ## the main job: search on the real images, register the best model
	$(ACTIVATE) mlflow run . -e tune --env-manager local

test: lint ## all checks
	$(ACTIVATE) python -m pytest -n 2 --dist loadfile

lint: $(READY) ## the checks that run nothing: style, format, types
	$(ACTIVATE) ruff check .
	$(ACTIVATE) ruff format --check .
	$(ACTIVATE) mypy

format: $(READY) ## format the code and mend what ruff can
	$(ACTIVATE) ruff check --fix .
	$(ACTIVATE) ruff format .

ui: $(READY) ## look at the runs in a browser: port 5000 of this machine
	$(ACTIVATE) mlflow ui --backend-store-uri sqlite:///mlflow.db --port 5000

serve: $(READY) ## serve the champion: port 8080 of this machine
	$(ACTIVATE) fmnist-exp serve --port 8080

results: $(READY) ## train the published systems and ours, three seeds each, and write docs/results.md (hours; goes on)
	$(ACTIVATE) python -m benchmarks.systems

race: $(READY) ## this platform's search against four others, three times ten minutes each (hours; goes on)
	$(ACTIVATE) uv pip install --compile-bytecode --require-hashes -r requirements-bench.txt
	$(ACTIVATE) python -m benchmarks.tuning.race --publish

bench-train: $(READY) ## training speed beside plain Keras and the machine's peak (hours, goes on; QUICK=1: 5 minutes)
	$(ACTIVATE) python -m benchmarks.training.speed $(if $(QUICK),--quick)

lock: $(READY) ## resolve pyproject.toml into the requirements files (UPGRADE=1 takes newer versions)
	$(ACTIVATE) $(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements.txt
	$(ACTIVATE) $(LOCK) $(if $(UPGRADE),--upgrade) --group dev -c requirements.txt -o requirements-dev.txt
	$(ACTIVATE) $(LOCK) $(if $(UPGRADE),--upgrade) --group bench -c requirements.txt -o requirements-bench.txt

# Every step checks hashes: pip installs the tools (uv among them), uv the rest. The file comes last, so that what
# stopped half-way starts again from an empty environment. uv leaves bytecode to the first start, and where
# PYTHONDONTWRITEBYTECODE is set, as in most images, to every start: so it is compiled here.
$(READY): pyproject.toml requirements.txt requirements-dev.txt
	@$(PYTHON) $(SUPPORTED) || { echo "$(PYTHON) is no Python 3.11, 3.12 or 3.13 that runs. Install one, or name it: make test PYTHON=/where/it/is/python3" >&2; exit 1; }
	@test -n "$(ENSUREPIP)" || $(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "$(PYTHON) has neither venv nor pip. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear$(if $(ENSUREPIP),, --without-pip) $(VENV)
	$(PIP) install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(ACTIVATE) uv pip install --compile-bytecode --require-hashes -r requirements.txt -r requirements-dev.txt
	$(ACTIVATE) uv pip install --no-deps --no-build-isolation --editable .
	@touch $@
