# make demo: from nothing to a report page.   make test: all but the slowest tests (also what CI calls).   make test-all: these, too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all install

# Two workers with one thread each, for two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "m2net needs Python 3.11 or newer; call make PYTHON=python3.11")'
	@df -Pk . | awk 'NR == 2 && $$4 < 10e6 {printf "Only %.1f GB are free here; torch and what it needs take about 10 while they are installed\n", $$4 / 1e6}'
	@echo "Installing m2net and its libraries into $(VENV) (torch is some gigabytes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/python experiments/demo/run.py

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m "not slow and not gpu"

test-all: $(READY)
	$(PYTEST)
