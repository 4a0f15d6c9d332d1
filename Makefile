# Two commands do everything on a machine that has Python and nothing else:
#   make demo   simulate, train, tokenize and analyze a small turbulence data set
#   make test   lint, type check, tests (installs the system libraries of Dedalus when root)
# make test-all, which CI runs, also takes the tests of minutes: heavy physics, two processes, whole chains.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
PYTEST_ARGS ?=

# Solvers and loaders parallelize over processes; one BLAS thread each keeps them from fighting.
test test-all: export OMP_NUM_THREADS = 1

.PHONY: demo test test-all lint format check clean

demo: $(VENV)/.demo
	$(BIN)/python -m gust_torch.demo

test: PYTEST_ARGS += -m "not slow"
test test-all: lint check

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info demo_output .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: setup.cfg constraints.txt | $(BIN)/python
	$(PIP) -e '.[fast]'
	@touch $@

$(VENV)/.dev: setup.cfg constraints.txt scripts/system_libraries.sh | $(BIN)/python
	bash scripts/system_libraries.sh
	CC=mpicc $(PIP) -e '.[fast,rbc,graphs,wandb,s3,sweeps,dev]'
	@touch $@ $(VENV)/.demo
