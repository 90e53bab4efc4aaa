# Two commands on a fresh machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
BIN := $(VENV)/bin
# A test file is run by one worker, so that what its tests share is made once.
WORKERS := --numprocesses auto --maxprocesses 4 --dist loadfile
INSTALLED := $(VENV)/.installed

.PHONY: install demo test lint bench bench-backbones parity clean

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; give another one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

demo: install
	$(BIN)/python -m plankton_jax.train --config configs/quickstart.py --workdir $(RUN)
	$(BIN)/python -m plankton_jax.evaluate --run $(RUN) --split test

test: install
	$(BIN)/python -m pytest $(WORKERS) -m "not parity and not slow and not multihost"
	$(BIN)/python -m pytest $(WORKERS) -m "(slow or multihost) and not parity"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Compares with timm and torch as they run, in an environment of its own beside the main one.
parity: $(VENV)-parity/.installed
	$(VENV)-parity/bin/python -m pytest -m parity

$(VENV)-parity/.installed: requirements.lock requirements-parity.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)-parity
	$(VENV)-parity/bin/python -m pip install --quiet --requirement requirements.lock
	$(VENV)-parity/bin/python -m pip install --quiet --no-deps --requirement requirements-parity.lock
	$(VENV)-parity/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

# With NDSB=train.zip the loader is measured too, against torchvision in the parity environment.
bench: install $(if $(NDSB),$(VENV)-parity/.installed)
	$(BIN)/python benchmarks/building.py $(if $(NDSB),--ndsb $(NDSB))
	$(BIN)/python benchmarks/opening.py
	$(BIN)/python benchmarks/step_overhead.py
	$(BIN)/python benchmarks/warm_start.py
	$(BIN)/python benchmarks/host_memory.py
	$(if $(NDSB),$(BIN)/python benchmarks/loader.py --ndsb $(NDSB) --peer-python $(VENV)-parity/bin/python)

# Every kind of network against timm in PyTorch, about half an hour on two cores.
bench-backbones: install $(VENV)-parity/.installed
	$(BIN)/python benchmarks/backbones.py --peer-python $(VENV)-parity/bin/python

clean:
	rm -rf $(VENV) $(VENV)-parity build .pytest_cache .ruff_cache .hypothesis
