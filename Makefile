# Everything runs inside .venv, which is made on first use and again when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# One process on whatever this machine has. Without the four settings accelerate lists the defaults it assumed,
# without --quiet it adds a traceback of its own to an error that has been explained already.
LAUNCH := $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: help demo test test-all correctness results lint format configs browser

help:
	@echo "make demo      align the embedded model with DPO, offline (a few minutes on a laptop)"
	@echo "make test      the tests"
	@echo "make test-all  and the slow ones: whole trainings, comparisons with other libraries"
	@echo "make correctness  the exact lab and the equivalence matrix, and their figures anew in docs/correctness.md"
	@echo "make results   the experiments on the papers' claims, and docs/results.md anew (about three hours)"
	@echo "make lint      style and types"
	@echo "make format    put the style right"
	@echo "make browser   install Chromium, in which the tests open the pages (Debian, as root); without it they are skipped"
	@echo "make configs   write configs/ anew from the settings' and methods' classes"

demo: $(READY)
	$(LAUNCH) scripts/run.py method=dpo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n auto

test-all: $(READY)
	$(BIN)/python -m pytest -n auto

correctness: $(READY)
	$(BIN)/python -m pytest tests/lab tests/equivalence --write-figures

results: $(READY)
	$(BIN)/python scripts/experiment.py

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

configs: $(READY)
	$(BIN)/python scripts/make_configs.py

browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || \
		timeout 180 sh -c 'apt-get -qq update && apt-get -qq install --no-install-recommends chromium' >/dev/null 2>&1 || \
		echo "Chromium could not be installed: the tests of pages are skipped."

# PyTorch first: other packages then build and check against the version that is there.
$(READY): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e ".[dev]" -c constraints.txt
	touch $@
