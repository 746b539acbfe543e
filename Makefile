# make demo | make test | make test-long | make lint | make boards (hours). Needs Python 3.11 or
# later, gcc, g++, make, perl and git; everything else goes into .venv.

PYTHON ?= $(shell python3.11 -c "" 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

# packages of which the examples read data and weights, and nothing else
CARRIERS := aeon facenet-pytorch scikit-image

.PHONY: demo test test-long lint boards

demo: $(STAMP)
	$(BIN)/secateur demo

test: $(STAMP)
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

test-long: $(STAMP)
	$(BIN)/pytest -m long

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

boards: $(STAMP)
	$(BIN)/python -m secateur.boards.measure -o build/boards --document docs/explanation/boards.md

$(STAMP): pyproject.toml constraints.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	$(BIN)/pip install -q -c constraints.txt --no-deps $(CARRIERS)
	touch $@
