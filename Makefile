# Each target installs what it needs (apt packages, virtual environments, kernel headers) and is quick where all is there:
# .venv is the program as a wheel with its hot modules compiled, .venv-dev the checkout with the tools for its tests.
# PYTHON: the interpreter that both are made from, 3.11 or newer. COMPILE=0: without a C compiler, and slower.
# KEEP=1: `make demo` leaves its mesh up. QUICK=1, CHECK=1, BENCH_OPTIONS: docs/benchmark.md. BENCH_SECONDS: how long one
# sample at a waypoint takes. LONG_SECONDS: how long each flood of `make test-long` lasts.
SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
BENCH_SECONDS ?= 3
PORTS_SECONDS ?= 120
CONTROL_SECONDS ?= 30
WAYPOINTS ?= 0
LONG_SECONDS ?= 30
COMPILE ?= 1
TEST_WORKERS ?= 4
BIN := .venv/bin
DEV := .venv-dev/bin
UV := .build/uv/bin/uv
KERNEL_PACKAGES := python3-bpfcc iproute2 nftables
LOAD_PACKAGES := wrk nginx-light curl
BENCH_PACKAGES := $(LOAD_PACKAGES) nghttp2-client
TEST_PACKAGES := $(BENCH_PACKAGES) iptables
BPF_SOURCES = $(shell find bpf -name '*.[ch]')

export PYTHON COMPILE
unexport PYTHONDONTWRITEBYTECODE # without compiled tests each of the workers compiles all of them, a minute together

.PHONY: help demo bookinfo test test-kube test-long bench bench-waypoint bench-ports bench-control bench-routes lint clean install lock

help:
	@echo "make demo | bookinfo | test | test-kube | test-long | bench | bench-waypoint | bench-ports | bench-control | bench-routes | lint | clean"

demo:
	@.ci/as-root demo
	@.ci/install run $(KERNEL_PACKAGES) $(LOAD_PACKAGES)
	@$(BIN)/ztunnel demo run $(if $(KEEP),--keep)

# The well-known example behind a waypoint, step by step.
bookinfo:
	@.ci/as-root bookinfo
	@.ci/install run $(KERNEL_PACKAGES) $(LOAD_PACKAGES)
	@$(BIN)/ztunnel demo bookinfo $(if $(KEEP),--keep)

test test-long bench bench-waypoint bench-ports bench-control: export ZTUNNEL_PROGRAM = $(CURDIR)/$(BIN)/ztunnel

test:
	@.ci/as-root test
	@.ci/install run $(KERNEL_PACKAGES) $(TEST_PACKAGES)
	@.ci/install dev
	@$(DEV)/python -m tests.leftovers $(DEV)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST)

# On a cluster: that of KUBECONFIG, whose nodes have the image ZTUNNEL_IMAGE=repository:tag; else on the one that
# ../shared/kube brings up, with an image of this checkout.
test-kube:
	@.ci/as-root test-kube
	@.ci/install dev $(KERNEL_PACKAGES)
	@$(DEV)/python -m tests.leftovers $(DEV)/python -m pytest -p no:randomly -x -s tests/cluster $(PYTEST)

# Each pattern of a hostile peer for LONG_SECONDS, held to the stricter limits: half an hour, on a machine of its own.
test-long:
	@.ci/as-root test-long
	@.ci/install run $(KERNEL_PACKAGES) $(LOAD_PACKAGES)
	@.ci/install dev
	@ZTUNNEL_FLOOD_SECONDS=$(LONG_SECONDS) $(DEV)/python -m tests.leftovers $(DEV)/python -m pytest -s tests/mesh/test_floods.py

BENCH_WAYPOINT = $(DEV)/python -m tests.leftovers $(DEV)/python -m bench.waypoint --seconds $(BENCH_SECONDS) \
	$(if $(QUICK),--quick)

# All contestants in all rows, a table, .build/bench.json and a picture of it, .build/bench.svg; then bench-waypoint,
# unless BENCH_OPTIONS asks for something else.
bench:
	@.ci/as-root bench
	@.ci/install run $(KERNEL_PACKAGES) $(BENCH_PACKAGES)
	@.ci/install dev
	@status=0; $(DEV)/python -m tests.leftovers $(DEV)/python -m bench --command 'make bench$(if $(QUICK), QUICK=1)' \
		$(if $(QUICK),--quick) $(if $(CHECK),--check) $(BENCH_OPTIONS) || status=$$?; \
		[ ! -s .build/bench.json ] || $(DEV)/python -m bench.picture .build/bench.json .build/bench.svg; \
		$(if $(BENCH_OPTIONS),,$(BENCH_WAYPOINT) || status=$$?;) exit $$status

# Only our waypoint beside an Envoy in its place; QUICK=1: one sample of a second each.
bench-waypoint:
	@.ci/as-root bench-waypoint
	@.ci/install run $(KERNEL_PACKAGES) $(BENCH_PACKAGES)
	@.ci/install dev
	@$(BENCH_WAYPOINT)

# Many new connections a second from one pod, for PORTS_SECONDS, and what an unrelated pair of pods feels.
bench-ports:
	@.ci/as-root bench-ports
	@.ci/install run $(KERNEL_PACKAGES) $(LOAD_PACKAGES)
	@.ci/install dev
	@$(DEV)/python -m tests.leftovers $(DEV)/python -m bench.ports --seconds $(PORTS_SECONDS)

# A control plane over a cluster in memory: what a change costs it, and how soon every node has taken it.
bench-control:
	@.ci/install run
	@.ci/install dev
	@$(DEV)/python -m bench.control --seconds $(CONTROL_SECONDS) --waypoints $(WAYPOINTS)

# How long a waypoint's decision takes with a thousand routes.
bench-routes:
	@.ci/install dev
	@$(DEV)/python -m bench.routes

lint:
	@.ci/install dev
	@$(DEV)/ruff check
	@$(DEV)/ruff format --check
	@$(DEV)/mypy
	@$(DEV)/lint-imports --no-cache
	@$(if $(BPF_SOURCES),$(DEV)/clang-format --dry-run -Werror $(BPF_SOURCES))

install:
	@.ci/install run $(KERNEL_PACKAGES) $(TEST_PACKAGES)
	@.ci/install dev

clean:
	@if [ -x $(BIN)/ztunnel ] && [ "$$(id -u)" = 0 ]; then $(BIN)/ztunnel demo down; fi
	@rm -rf .venv .venv-dev .build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

# One resolution for every Python from 3.11 on and every machine; all files by hash.
lock:
	@$(PYTHON) -m venv .build/uv && $(UV) --version >/dev/null 2>&1 || .build/uv/bin/pip install -q uv==0.13.9
	@$(UV) $(LOCK) --extra build --output-file requirements.lock
	@$(UV) $(LOCK) --extra build --extra dev --extra bench -c requirements.lock --output-file requirements-dev.lock

LOCK := pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
