# Two commands need nothing but Python 3.11+, its venv module and make: `make serve` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: serve test check demo bench soak format lock openapi clean

serve: $(VENV)/.installed
	@exec $(BIN)/audit-service serve

demo: $(VENV)/.installed
	@exec $(BIN)/audit-service demo

# In two processes, a file at a time, each with a PostgreSQL of its own: half the time, and the same tests.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.check_locks
	$(BIN)/python -m scripts.check_drift

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

# Long: kills, cut connections, full disks. SOAK_CYCLES=20 for a taste; SOAK_SEED=… repeats a run.
SOAK_CYCLES ?= 200
soak: $(VENV)/.installed-dev
	SOAK_CYCLES=$(SOAK_CYCLES) $(BIN)/python -m pytest tests/soak -s -p no:randomly

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

openapi: $(VENV)/.installed
	$(BIN)/audit-service openapi > openapi.yaml

# Needs uv (`pip install uv`): resolves for every Python from 3.11 on, with hashes, build backend included.
lock:
	uv pip compile pyproject.toml --group build --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet -o requirements.lock
	uv pip compile pyproject.toml --group build --group dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet -c requirements.lock -o requirements-dev.lock

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "audit-service needs Python 3.11 or newer; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python requirements.lock pyproject.toml
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

clean:
	rm -rf $(VENV) build dist
