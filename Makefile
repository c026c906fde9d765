# Two commands do everything on a machine that has Python 3.11 or later, make and a C library:
#   make demo    a simulated subject, decoded live
#   make test    all tests
# Each makes its own environment under .venv/ and makes it again when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
DEMO := $(VENV)/demo
DEV := $(VENV)/dev
PIP := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SECONDS ?= 30
# Processes that run tests side by side, a file each: most of them wait, so that two cores are enough for three.
WORKERS ?= 3

# One thread per operation: the daemon's own setting, and two cores are enough for everything here.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo test test-triton lint format bench demo-bundle chaos-bundle schema clean help

help:
	@sed -n '2,4p' Makefile | sed 's/^# *//'
	@echo "  make test-triton   the tests that need a Triton server (150 MB are installed for it)"
	@echo "  make lint          ruff and mypy"
	@echo "  make bench         the benchmarks that need no accelerator"
	@echo "  make performance   write docs/performance.md from benchmarks/results"
	@echo "  make demo-bundle   train the demo's model again"
	@echo "  make chaos-bundle  write the bundle of rtdecode chaos again"
	@echo "  make schema        write the schemas and docs/configuration.md from the code"

demo: $(DEMO)/ready
	@$(DEMO)/bin/rtdecode demo --seconds $(SECONDS)

test: $(DEV)/ready
	$(DEV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# A real Triton server on the CPU. Its wheel carries the server; what else it asks for is not needed, and clashes.
test-triton: $(DEV)/ready
	$(DEV)/bin/python $(PIP) --no-deps nvidia-pytriton==0.7.0
	$(DEV)/bin/python -m pytest -m triton $(ARGS)

lint: $(DEV)/ready
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy

format: $(DEV)/ready
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

bench: $(DEV)/ready
	$(DEV)/bin/python benchmarks/wire.py
	$(DEV)/bin/python benchmarks/overhead.py --seconds 30
	$(DEV)/bin/python benchmarks/replay.py
	$(DEV)/bin/python benchmarks/stamps.py

performance: $(DEV)/ready
	$(DEV)/bin/python benchmarks/report.py

demo-bundle: $(DEV)/ready
	$(DEV)/bin/python -m rtdecode_models.demo --out rtdecode/demo/bundle.zip

chaos-bundle: $(DEV)/ready
	$(DEV)/bin/python -m rtdecode_export.witness

schema: $(DEV)/ready
	$(DEV)/bin/python -m rtdecode.wire.schema > docs/wire.schema.json
	$(DEV)/bin/python -m rtdecode.daemon.reference schema > docs/config.schema.json
	$(DEV)/bin/python -m rtdecode.daemon.reference page > docs/configuration.md

$(DEMO)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rtdecode needs Python 3.11 or later; say which: make PYTHON=python3.12")'
	@echo "making the environment $(DEMO) (once)"
	@$(PYTHON) -m venv --clear $(DEMO)
	@$(DEMO)/bin/python $(PIP) --editable '.[cpu]'
	@touch $@

$(DEV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rtdecode needs Python 3.11 or later; say which: make PYTHON=python3.12")'
	@echo "making the environment $(DEV) (once)"
	@$(PYTHON) -m venv --clear $(DEV)
	@$(DEV)/bin/python $(PIP) --editable '.[cpu,files,train,dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
