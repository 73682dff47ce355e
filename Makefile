# Each target sets up what it needs: "make serve" and "make test" work on a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 5000
DATA ?= data

.PHONY: help serve test lint format train bench clean

help:
	@echo "make serve   set up, then the page and the API on http://127.0.0.1:$(PORT)"
	@echo "make test    set up, then lint, types and tests"
	@echo "make lint    ruff and mypy"
	@echo "make train   train the shipped model again into saved_models/ (DATA=folder with MNIST)"
	@echo "make bench   measure the shipped model, and write the figures into MODEL_CARD.md and README.md"
	@echo "make clean   remove the virtual environments and caches"

# Serving has an environment of its own: it needs neither torch nor the tests' tools.
.venv-serve/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-serve
	.venv-serve/bin/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# KServe's client too: it holds protobuf and psutil to older versions than what trains.
.venv-kserve/.installed: Makefile
	$(PYTHON) -m venv .venv-kserve
	.venv-kserve/bin/python -m pip install --quiet --disable-pip-version-check 'kserve>=0.21'
	@touch $@

serve: .venv-serve/.installed
	.venv-serve/bin/inkdigits serve --port $(PORT)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint .venv-kserve/.installed
	KSERVE_PYTHON=.venv-kserve/bin/python $(BIN)/python -m pytest

# Four runs: three from random weights, the last from the first one's and taught by all three.
RECIPE := --ema-decay 0.9995 --augmentation 1.2 --keep last
FIRST := saved_models/first
SECOND := saved_models/second
THIRD := saved_models/third
train: $(VENV)/.installed
	$(BIN)/inkdigits train --data $(DATA) $(RECIPE) --epochs 40 --learning-rate 0.003 \
	  --out $(FIRST) --figures outputs/figures/first --logs outputs/logs/first
	$(BIN)/inkdigits train --data $(DATA) $(RECIPE) --epochs 40 --learning-rate 0.003 --seed 1 \
	  --out $(SECOND) --figures outputs/figures/second --logs outputs/logs/second
	$(BIN)/inkdigits train --data $(DATA) $(RECIPE) --epochs 30 --learning-rate 0.003 --seed 3 \
	  --network TeacherNet --out $(THIRD) --figures outputs/figures/third --logs outputs/logs/third
	$(BIN)/inkdigits train --data $(DATA) $(RECIPE) --epochs 30 --learning-rate 0.002 --seed 4 \
	  --init $(FIRST)/mnist_classifier.pt --teacher $(FIRST)/mnist_classifier.pt \
	  --teacher $(SECOND)/mnist_classifier.pt --teacher $(THIRD)/mnist_classifier.pt \
	  --distillation 0.8

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/inputs.py --data $(DATA) --json benchmarks/inputs.json
	$(BIN)/python benchmarks/robustness.py --data $(DATA) --per-family 2000 \
	  --json benchmarks/robustness.json --figure docs/images/robustness.png
	$(BIN)/python benchmarks/latency.py --data $(DATA) --json benchmarks/latency.json
	$(BIN)/python benchmarks/footprint.py --starts 5 --json benchmarks/footprint.json
	$(BIN)/python benchmarks/reads.py --data $(DATA)
	$(BIN)/python benchmarks/documents.py

clean:
	rm -rf $(VENV) .venv-serve .venv-kserve .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
