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
# is not done again. RESUME=1 starts from the published bundles.
TWINS := quickstart cifar10-resnet20-small cifar10-resnet20-matrix-small rethinking-table-1-small \
  rethinking-table-6-small rethinking-table-9-small rethinking-figure-3-small rethinking-table-16-small
CIFAR ?= data/cifar10

reproduce: $(STAMP)
	for name in $(TWINS); do \
	  if [ -n "$(RESUME)" ] && [ -f docs/results/$$name.zip ]; then \
	    $(BIN)/shrinkbench merge docs/results/$$name.zip --out results/$$name || exit 1; fi; \
	  $(BIN)/shrinkbench sweep $$name --data cifar10=$(CIFAR) --workers 2 || exit 1; \
	  $(BIN)/shrinkbench bundle results/$$name --out docs/results/$$name.zip || exit 1; \
	done
	$(BIN)/python reproduce/findings.py
