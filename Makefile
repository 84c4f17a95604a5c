# The two commands: `make demo` shows the service at work, `make test` passes the tests.
# Both need Python 3.11+ with venv and pip, and nothing else; the rest comes from the locks, pinned by hash.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-postgresql soak mutations check lock clean

demo: $(VENV)/.runtime
	$(BIN)/syncsvc demo

test: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist worksteal

soak: test-postgresql  ## the proofs in their long forms: ten times the seeds, a cycle after every event
	SYNCSVC_SOAK=1 $(BIN)/pytest -n auto --dist worksteal --timeout 7200 tests/engine tests/system/test_kills.py tests/system/test_replicas.py \
	  tests/system/test_scale.py

test-postgresql: $(VENV)/.dev  ## every test of the engine with its state on a PostgreSQL server of its own
	SYNCSVC_STATE=postgresql SYNCSVC_POSTGRES=required $(BIN)/pytest -n auto --dist worksteal tests/engine

mutations: $(VENV)/.dev  ## breaks one law at a time and sees the suite fail
	$(BIN)/python tests/mutations/run.py

check: $(VENV)/.dev  ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "setting up $(VENV) (once)"
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

lock:  ## pins what pyproject.toml asks for; needs uv
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate pyproject.toml --extra postgres --group build -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate pyproject.toml --extra postgres --group build --group dev -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf $(VENV)
