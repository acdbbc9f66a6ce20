# The commands of this project. `make demo` and `make test` are all that a newcomer needs.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The peers that benchmarks compare with are pytest plugins that switch themselves on: they get a place of their own.
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready
# All that the demo needs, without the tools of development: 300 MB less.
DEMO_VENV := .venv-demo
DEMO_READY := $(DEMO_VENV)/.ready
# The first interpreter that really starts and is new enough.
PYTHON ?= $(shell for p in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
# Without bytecode files each of the many interpreters that tests start compiles everything it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-kernel test-computing test-all lint bench docs clean

help:
	@echo "make demo      the whole job on examples/, ending with the scale table and a report"
	@echo "make test      everything that has to pass (about five minutes on two cores)"
	@echo "make test-all  also the slow tests, and Python 3.12 to 3.15 where installed"
	@echo "make docs      the documents as a site, in out/docs"
	@echo "make bench     the figures, side by side with the peers"

$(READY): pyproject.toml pytest_membudget/_version.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; found none on PATH. Install one or say: make PYTHON=/path/to/python3" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@touch $(READY)

$(DEMO_READY): pyproject.toml pytest_membudget/_version.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; found none on PATH. Install one or say: make PYTHON=/path/to/python3" >&2; exit 2; }
	@test -x $(DEMO_VENV)/bin/python || $(PYTHON) -m venv $(DEMO_VENV)
	@echo "installing into $(DEMO_VENV), with the parsers of the examples"
	@$(DEMO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[examples]'
	@touch $(DEMO_READY)

# Where everything is installed already, the demo runs there; else in a small place of its own.
DEMO_IN := $(if $(wildcard $(READY)),$(VENV),$(DEMO_VENV))
demo: $(DEMO_IN)/.ready
	$(DEMO_IN)/bin/python examples/demo.py

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# What is measured on the real kernel comes first, beside nothing but the linters and tests that compute. The rest shares the cores:
# of three processes one waits for what its test has started, on average. Tests that share what takes long to set up are a group,
# which one of the processes runs.
COMPUTING := tests/gate tests/inputs tests/records tests/stats tests/typing
test: $(READY)
	@$(MAKE) --no-print-directory -j2 test-kernel test-computing
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadgroup --ignore=tests/measurement $(COMPUTING:%=--ignore=%)

test-kernel: $(READY)
	$(BIN)/python -m pytest tests/measurement/growth
	$(BIN)/python -m pytest tests/measurement --ignore=tests/measurement/growth

test-computing: lint
	$(BIN)/python -m pytest $(COMPUTING)

# With other random examples and faults than `make test` has, each time; a failure shows how to repeat it.
test-all: lint
	MEMBUDGET_FAULT_SEED=$$(date +%s) $(BIN)/python -m pytest -m "slow or not slow" --hypothesis-profile=others
	$(BIN)/nox

$(BENCH_READY): pyproject.toml benchmarks/requirements.txt
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@echo "installing into $(BENCH_VENV), with the peers to compare with"
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]' -r benchmarks/requirements.txt
	@touch $(BENCH_READY)

# BENCH=benchmarks/test_inputs.py runs one question only.
BENCH ?= benchmarks
bench: $(BENCH_READY)
	$(BENCH_VENV)/bin/python -m pytest $(BENCH) -o addopts=-ra -o timeout=1800 -p no:cacheprovider -p no:monitor -p no:memray

# The site, with the API reference; a warning is an error.
docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs out/docs
	@echo "out/docs/index.html"

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(DEMO_VENV) .mypy_cache .ruff_cache .pytest_cache build dist out/docs
