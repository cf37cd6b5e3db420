# Every target is a few plain commands, which make prints before it runs them. README.md says how to do without make.
SHELL := /bin/sh
VENV := .venv
ACTIVATE := . $(VENV)/bin/activate &&
READY := $(VENV)/.ready
LOCK := uv pip compile --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-header --no-annotate --quiet

# The first supported Python that really runs; a pyenv shim may not. `make test PYTHON=...` chooses another one.
SUPPORTED := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
PYTHON ?= $(or $(shell for p in python3.13 python3.12 python3.11; do $$p $(SUPPORTED) && echo $$p && break; done),python3)
# Debian's Python has no ensurepip without the package python3-venv. Its own pip then installs into the environment.
ENSUREPIP = $(shell $(PYTHON) -c 'import ensurepip' 2>/dev/null && echo yes)
PIP = $(if $(ENSUREPIP),$(VENV)/bin/python -m pip,$(PYTHON) -m pip --python $(VENV)/bin/python)

.DEFAULT_GOAL := help
.PHONY: help tune test faults attacks audit lint format ui serve results lcbench race bench-train lock

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "make %-11s %s\n", $$1, $$2 }'

tune: $(READY) ## search for the best network and register it (10 to 15 minutes on 2 cores)
	$(ACTIVATE) mlflow run . -e tune --env-manager local

test: lint ## run all checks: lint, then the tests
	$(ACTIVATE) python -m pytest -n 2 --dist loadfile --max-worker-restart 0

faults: $(READY) ## inject the faults of docs/reliability.md that need minutes
	$(ACTIVATE) python -m pytest -n 3 --dist worksteal --durations 10 -m slow tests/reliability

attacks: $(READY) ## try every attack of docs/security.md, and print what happened to each
	$(ACTIVATE) python -m pytest -n 2 --dist loadfile --quiet tests/security

audit: $(READY) ## look the locked requirements up in a database of known vulnerabilities
	$(ACTIVATE) .ci/audit

lint: $(READY) ## check style, format and types
	$(ACTIVATE) ruff check .
	$(ACTIVATE) ruff format --check .
	$(ACTIVATE) mypy

format: $(READY) ## format the code and fix what ruff can fix
	$(ACTIVATE) ruff check --fix .
	$(ACTIVATE) ruff format .

ui: $(READY) ## show the runs in a browser, at http://127.0.0.1:5000
	$(ACTIVATE) mlflow ui --backend-store-uri sqlite:///mlflow.db --port 5000

serve: $(READY) ## serve the champion, at http://127.0.0.1:8080
	$(ACTIVATE) fmnist-exp serve --port 8080

results: $(READY) ## train the published systems and ours with three seeds, write docs/results.md (half a day; can be resumed)
	$(ACTIVATE) python -m benchmarks.systems

lcbench: $(READY) ## judge searches on the LCBench surrogate in ../shared/lcbench (hours; can be resumed)
	$(ACTIVATE) uv venv --allow-existing $(VENV)-lcbench
	$(ACTIVATE) uv pip install --python $(VENV)-lcbench --require-hashes -r requirements-lcbench.txt
	$(ACTIVATE) python -m benchmarks.lcbench

race: $(READY) ## compare this platform's search with four others (5 hours; can be resumed)
	$(ACTIVATE) uv pip install --compile-bytecode --require-hashes -r requirements-bench.txt
	$(ACTIVATE) python -m benchmarks.tuning.race

bench-train: $(READY) ## compare training with plain Keras and the machine's peak (hours, can be resumed; QUICK=1: 5 minutes)
	$(ACTIVATE) python -m benchmarks.training.speed $(if $(QUICK),--quick)

lock: $(READY) ## resolve pyproject.toml into the requirements files (UPGRADE=1: take the newest versions)
	$(ACTIVATE) $(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements.txt
	$(ACTIVATE) $(LOCK) $(if $(UPGRADE),--upgrade) --group dev -c requirements.txt -o requirements-dev.txt
	$(ACTIVATE) $(LOCK) $(if $(UPGRADE),--upgrade) --group bench -c requirements.txt -o requirements-bench.txt
	$(ACTIVATE) $(LOCK) $(if $(UPGRADE),--upgrade) --group lcbench -o requirements-lcbench.txt

# pip installs the tools (uv among them) and uv the rest, both with hashes. The file .ready is written last, so that an
# interrupted set-up starts again with an empty environment. uv by itself would leave the bytecode to the first start of
# Python, and to every start if PYTHONDONTWRITEBYTECODE is set, as it is in most container images.
$(READY): pyproject.toml requirements.txt requirements-dev.txt
	@$(PYTHON) $(SUPPORTED) || { echo "$(PYTHON) is not a working Python 3.11, 3.12 or 3.13. Install one, or choose it: make test PYTHON=/path/to/python3" >&2; exit 1; }
	@test -n "$(ENSUREPIP)" || $(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "$(PYTHON) has neither venv nor pip. On Debian and Ubuntu, run: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear$(if $(ENSUREPIP),, --without-pip) $(VENV)
	$(PIP) install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(ACTIVATE) uv pip install --compile-bytecode --require-hashes -r requirements.txt -r requirements-dev.txt
	$(ACTIVATE) uv pip install --no-deps --no-build-isolation --editable .
	@touch $@
