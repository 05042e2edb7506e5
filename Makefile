# Everything a newcomer needs: `make quickstart` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: install quickstart test lint types format slow bench reproduce clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/shrinkbench sweep quickstart --workers 2
	$(BIN)/shrinkbench report results/quickstart

test: lint types
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) results build dist

bench: $(STAMP)
	$(BIN)/python benchmarks/page.py --run all

# The small twins of the papers' experiments, and the page of findings. CIFAR=DIR holds the images; what is done
# is not done again. RESUME=1 starts from the published bundles; GPU=1 runs those too that want one. Bundles and page
# are written when all has been run, so that a fault on the way leaves them as they were.
TWINS := quickstart cifar10-resnet20-small cifar10-resnet20-matrix-small shrinkbench-figure-6-small \
  shrinkbench-figure-7-small shrinkbench-figure-8-small shrinkbench-figure-15-small rethinking-table-1-small rethinking-table-6-small \
  rethinking-table-9-small rethinking-figure-3-small rethinking-table-16-small
NOISE := cifar10-resnet20-noise-small
ON_GPU := shrinkbench-figure-7-gpu-small $(NOISE) rethinking-gpu-small rethinking-50-epochs-gpu-small
# Orders and initial weights are varied on a GPU, schedules and threads on a processor.
BY_GPU := --part order $(foreach number,1 2 3 4 5 6 7,--part weights-$(number))
CIFAR ?= data/cifar10
SWEEP := $(BIN)/shrinkbench sweep
RUN := $(TWINS) $(if $(GPU),$(ON_GPU))
THREADS := $(NOISE)-1-thread $(NOISE)-2-threads

reproduce: $(STAMP)
	if [ -n "$(RESUME)" ]; then for name in $(RUN) $(THREADS); do \
	  $(BIN)/shrinkbench merge docs/results/$$name.zip --out results/$$name || exit 1; done; fi
	for name in $(filter-out $(NOISE),$(RUN)); do $(SWEEP) $$name --data cifar10=$(CIFAR) --workers 2 || exit 1; done
	$(if $(GPU),$(SWEEP) $(NOISE) $(BY_GPU) --data cifar10=$(CIFAR) --workers 2)
	$(SWEEP) $(NOISE) --part order --set seed=[0,1] --data cifar10=$(CIFAR) --device cpu --workers 2 \
	  --out results/$(NOISE)-1-thread
	$(SWEEP) $(NOISE) --part cosine --part multistep --data cifar10=$(CIFAR) --device cpu --workers 2 \
	  --out results/$(NOISE)-1-thread
	mkdir -p results/$(NOISE)-2-threads/shared
	if [ -d results/$(NOISE)-1-thread/shared/pretrained ]; then \
	  cp -r results/$(NOISE)-1-thread/shared/pretrained results/$(NOISE)-2-threads/shared/; fi
	$(SWEEP) $(NOISE) --part order --set seed=0 --data cifar10=$(CIFAR) --device cpu --workers 1 \
	  --out results/$(NOISE)-2-threads
	for name in $(RUN) $(THREADS); do \
	  $(BIN)/shrinkbench bundle results/$$name --out docs/results/$$name.zip || exit 1; done
	$(BIN)/python reproduce/findings.py
