# Each target installs what it needs (apt packages, .venv, kernel headers) and is quick where all is there.
# PYTHON: the interpreter that .venv is made from, 3.11 or newer. KEEP=1: `make demo` leaves its mesh up.
# BENCH_SECONDS: how long one cell of the benchmark measures.
SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
BENCH_SECONDS ?= 3
BIN := .venv/bin
UV := .build/uv/bin/uv
KERNEL_PACKAGES := python3-bpfcc iproute2 nftables
LOAD_PACKAGES := wrk nginx-light curl
BPF_SOURCES = $(shell find bpf -name '*.[ch]')

export PYTHON

.PHONY: help demo test bench lint clean install lock

help:
	@echo "make demo | test | bench | lint | clean"

demo:
	@.ci/as-root demo
	@.ci/install run $(KERNEL_PACKAGES) $(LOAD_PACKAGES)
	@$(BIN)/ztunnel demo run $(if $(KEEP),--keep)

test:
	@.ci/as-root test
	@.ci/install dev $(KERNEL_PACKAGES) $(LOAD_PACKAGES)
	@$(BIN)/python -m tests.leftovers $(BIN)/python -m pytest $(PYTEST)

bench:
	@.ci/as-root bench
	@.ci/install dev $(KERNEL_PACKAGES) $(LOAD_PACKAGES)
	@$(BIN)/python -m tests.leftovers $(BIN)/python -m bench --seconds $(BENCH_SECONDS)

lint:
	@.ci/install dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(if $(BPF_SOURCES),$(BIN)/clang-format --dry-run -Werror $(BPF_SOURCES))

install:
	@.ci/install dev $(KERNEL_PACKAGES) $(LOAD_PACKAGES)

clean:
	@if [ -x $(BIN)/ztunnel ] && [ "$$(id -u)" = 0 ]; then $(BIN)/ztunnel demo down; fi
	@rm -rf .venv .build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

# One resolution for every Python from 3.11 on and every machine; all files by hash.
lock:
	@$(PYTHON) -m venv .build/uv && $(UV) --version >/dev/null 2>&1 || .build/uv/bin/pip install -q uv==0.13.9
	@$(UV) $(LOCK) --extra build --output-file requirements.lock
	@$(UV) $(LOCK) --extra build --extra dev --extra bench -c requirements.lock --output-file requirements-dev.lock

LOCK := pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
