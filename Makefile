# The doors to the project: what to type to run, test and measure it.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# what needs the test rig finds it here: make conformance RIG=/elsewhere/rig
RIG ?= ../shared/rig
# the benchmark's build: release is what ships, quick is built in a fraction of the time
BENCH_PROFILE ?= release
# narrows a test run: make test T=replay
T ?=

TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := $(shell tests/setup/venv --path)
NODE := $(shell tests/setup/node --path)
# no byte code beside the sources
export PYTHONDONTWRITEBYTECODE := 1
# `make -k test` and the like must not reorder what each recipe says
.NOTPARALLEL:

.PHONY: help run viewer-assets test test-rust test-python setup bench faults lint fmt conformance compose-test clean-venv

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## start gateway, NATS and the reference workers; Ctrl-C ends all
	@deploy/scripts/run

viewer-assets: ## fetch the pages of the CAD viewer into a cache outside the tree (needs pip)
	@deploy/scripts/viewer-assets

setup: ## install what the tests need (apt for programs, a venv outside the tree)
	@tests/setup/programs
	@tests/setup/venv
	@tests/setup/node

test: setup test-rust test-python ## every test: crate and real clients
	@echo "make test: all passed"

# the environment comes first in the path: the voice worker's recogniser is looked up there
test-rust:
	PATH="$(VENV)/bin:$$PATH" cargo test --no-fail-fast $(if $(T),-- $(T))

test-python:
	cargo build --bin causeway
	CAUSEWAY_BIN="$(abspath $(TARGET))/debug/causeway" CAUSEWAY_NODE_MODULES="$(NODE)/node_modules" "$(VENV)/bin/python" -m pytest -q -p no:cacheprovider $(if $(T),-k '$(T)') tests/python

SECONDS ?= 300
.PHONY: fuzz
fuzz: ## the JSON scanner beside serde_json under a fuzzer guided by coverage (SECONDS=n)
	@deploy/scripts/need cc c++
	tests/fuzz/run json $(SECONDS)

.PHONY: e2e e2e-blender e2e-cad addon
e2e: e2e-blender e2e-cad ## real programs as clients and workers: Blender, CAD packages, browsers (installs them, 3 GB)

e2e-blender: setup ## the same clients against a real Blender, without and with a window
	@deploy/scripts/need blender Xvfb
	cargo build --bin causeway
	CAUSEWAY_BIN="$(abspath $(TARGET))/debug/causeway" "$(VENV)/bin/python" -m pytest -q -p no:cacheprovider $(if $(T),-k '$(T)') tests/e2e/blender

e2e-cad: setup viewer-assets ## both generations of the CAD packages and real browsers
	@deploy/scripts/need chromium
	@tests/setup/cad
	cargo build --bin causeway
	CAUSEWAY_BIN="$(abspath $(TARGET))/debug/causeway" CAUSEWAY_NODE_MODULES="$(NODE)/node_modules" tests/e2e/cad/apart "$(VENV)/bin/python" -m pytest -q -p no:cacheprovider $(if $(T),-k '$(T)') tests/e2e/cad

addon: ## build the Blender add-on as one zip under target/
	@PYTHON="$(firstword $(wildcard $(VENV)/bin/python) python3)" deploy/workers/blender/build-addon "$(abspath $(TARGET))/causeway-blender.zip"

bench: ## measure beside nats-server and npm's socket.io and print the ratios
	@deploy/scripts/need nats-server cc
	cargo bench --profile $(BENCH_PROFILE) --bench gateway

.PHONY: replicas
replicas: setup ## commands a second with one, two and three instances of a worker
	cargo build --bin causeway
	CAUSEWAY_BIN="$(abspath $(TARGET))/debug/causeway" "$(VENV)/bin/python" tests/bench/replicas.py

faults: ## kill, pause, cut and stall on purpose; count what clients lose (T=name for one)
	@deploy/scripts/need nats-server
	@# moves the clock of one scenario, which is skipped aloud without it
	@deploy/scripts/need faketime || true
	@# what is broken is a build like those that ship, unless CAUSEWAY_BIN names another
	$(if $(CAUSEWAY_BIN),,cargo build --profile quick --bin causeway)
	FAULTS=full CAUSEWAY_BIN="$(or $(CAUSEWAY_BIN),$(abspath $(TARGET))/quick/causeway)" cargo test --test faults -- $(T)

lint: ## formatting, compiler and clippy warnings
	cargo fmt --check
	@if cargo clippy --version >/dev/null 2>&1; \
	then cargo clippy --lib --bins -- -D warnings \
		&& cargo clippy --all-targets -- -D warnings -A clippy::unwrap_used -A clippy::expect_used \
			-A clippy::print_stdout -A clippy::print_stderr; \
	else echo "clippy is not installed: warnings of the compiler only"; RUSTFLAGS="-D warnings" cargo check --all-targets; fi

fmt: ## format the source
	cargo fmt

conformance: ## the WebSocket conformance suite against the echo route (needs the rig)
	@RIG="$(RIG)" tests/setup/conformance

compose-test: ## check the manifests, build the images, bring the compose stack up, ask it, look at it, kill parts of it, scale it, take it down
	@RIG="$(RIG)" tests/setup/compose
