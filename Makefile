# Each target sets up what it needs: "make serve" and "make test" work on a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 5000
DATA ?= data

.PHONY: help serve check test test-slow lint format docs train bench clean

help:
	@echo "make serve      set up, then the page and the API on http://127.0.0.1:$(PORT)"
	@echo "make check      lint, types and fast tests: under a minute, for while you work"
	@echo "make test       set up, then lint, types and all tests but the slow ones"
	@echo "make test-slow  what is long by nature: fuzzing, faults, chaos"
	@echo "make lint       ruff, mypy and the import contracts"
	@echo "make docs       the documentation site, in build/docs/site/"
	@echo "make train      train the shipped models again, into saved_models/ (DATA=folder with MNIST)"
	@echo "make bench      measure the shipped model, and write the figures into the documents"
	@echo "make clean      remove the virtual environments and caches"

# venv and pip are silent for up to a minute, so a line every 5 seconds says that they work.
INSTALL = while sleep 5; do echo "still installing"; done & trap "kill $$!" EXIT; \
  $(PYTHON) -m venv $(1) && $(1)/bin/python -m pip install --disable-pip-version-check --progress-bar off -e

# Serving has an environment of its own: it needs neither torch nor the tests' tools.
.venv-serve/.installed: pyproject.toml
	@echo "Installing what serving needs into .venv-serve: about 250 MB, under a minute."
	@$(call INSTALL,.venv-serve) .
	@touch $@

$(VENV)/.installed: pyproject.toml
	@echo "Installing what tests and training need into $(VENV): about 6 GB with PyTorch, some minutes."
	@$(call INSTALL,$(VENV)) '.[dev]'
	@touch $@

serve: .venv-serve/.installed
	.venv-serve/bin/inkdigits serve --port $(PORT)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed
	$(BIN)/python docs/site.py --out build/docs

# Each file's tests stay in one process, so that what a file sets up is set up once. Two processes
# of one thread each use two cores better than two of two.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
check: lint
	$(PYTEST) -m "not e2e and not trains and not heavy and not mnist and not slow"

test: lint
	$(PYTEST)

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

# All stages, from data to the models that ship; what was interrupted is continued.
train: $(VENV)/.installed
	$(BIN)/inkdigits train --data $(DATA) $(if $(wildcard saved_models),--resume)

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/inputs.py --data $(DATA) --json benchmarks/inputs.json
	$(BIN)/python benchmarks/robustness.py --data $(DATA) --per-family 2000 \
	  --json src/inkdigits/weights/robustness.json --figure docs/images/robustness.png
	$(BIN)/python benchmarks/int8.py --data $(DATA) --json benchmarks/int8.json
	$(BIN)/python benchmarks/number_reading.py --data $(DATA) --n 200 --beside 50 \
	  --json benchmarks/number_reading.json
	$(BIN)/python benchmarks/footprint.py --starts 5 --json benchmarks/footprint.json
	$(BIN)/python benchmarks/reads.py --data $(DATA)
	$(BIN)/python benchmarks/documents.py
	$(BIN)/python docs/screenshots.py

clean:
	rm -rf $(VENV) .venv-serve .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
