# Needs Python 3.11 or later, gcc, g++, make, perl and git; everything else goes into .venv.

PYTHON ?= $(shell python3.11 -c "" 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

# packages of which the examples read data and weights, and nothing else
CARRIERS := aeon facenet-pytorch scikit-image

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long lint docs boards

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; \
	do printf '%-10s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## everything into .venv; then: source .venv/bin/activate

demo: $(STAMP) ## train, prune, quantise, compile and verify a CNN on MNIST
	$(BIN)/secateur demo
	@echo "Next: source .venv/bin/activate; docs/start/machine-learning.md"

test: $(STAMP) ## all tests but the long ones
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

test-long: $(STAMP) ## the tests that take minutes each
	$(BIN)/pytest -m long

lint: $(STAMP) ## style, types, order of the packages, spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: $(STAMP) ## the site, in build/docs; fails on warnings and dead links
	$(BIN)/sphinx-build -q -W -n --keep-going -b html docs build/docs

boards: $(STAMP) ## build and measure all boards with three seeds: hours
	$(BIN)/python -m secateur.boards.measure -o build/boards --document docs/explanation/boards.md

$(STAMP): pyproject.toml constraints.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	$(BIN)/pip install -q -c constraints.txt --no-deps $(CARRIERS)
	touch $@
