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
	@echo "make train      train the shipped model again into saved_models/student/ (DATA=folder with MNIST)"
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

# Pictures, five teachers that learn from them, the network that the five teach, then that network
# in int8. Where there is a GPU the teachers can be trained side by side, each with a thread:
# OMP_NUM_THREADS=1 make -j5 train. On a CPU one after the other takes all cores. What was
# interrupted goes on.
SYNTHETIC ?= 180000
TEACHER_EPOCHS ?= 75
EPOCHS ?= 86
PICTURES := saved_models/synthetic.npz
TEACHERS := $(foreach n,1 2 3 4 5,saved_models/teacher$(n))
RECIPE = --data $(DATA) --pictures $(PICTURES) --batch-size 512 --learning-rate 0.004 \
  --ema-decay 0.999 --augmentation 1.2 --keep last --out $(@D) \
  --figures outputs/figures/$(notdir $(@D)) --logs outputs/logs/$(notdir $(@D)) \
  $(if $(wildcard $(@D)/checkpoint.pt),--resume)
train: saved_models/student/run.json
	grep -q int8_changes $< || $(BIN)/inkdigits quantise --data $(DATA) --run $(<D) \
	  --figures outputs/figures/student

saved_models/student/run.json: $(TEACHERS:=/run.json)
	$(BIN)/inkdigits train $(RECIPE) --epochs $(EPOCHS) --seed 6 --dropout 0.1 --distillation 0.8 \
	  $(TEACHERS:%=--teacher %/mnist_classifier.pt)

saved_models/teacher%/run.json: $(PICTURES)
	$(BIN)/inkdigits train $(RECIPE) --network TeacherNet --epochs $(TEACHER_EPOCHS) --seed $*

$(PICTURES): | $(VENV)/.installed
	$(BIN)/inkdigits synthesise --data $(DATA) --synthetic $(SYNTHETIC) --out $@

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
