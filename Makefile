# Commands for developers. Each target works in a new clone: it first installs missing requirements (scripts/setup.sh).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup data build demo test gpu exactness bench fmt lint

ENV := . scripts/env.sh;
EXAMPLE := configs/examples/denoise/Cargo.toml

help: ## Print this list
	@echo "Lockstep: bit-for-bit reproducible data-parallel training."
	@echo
	@sed -n 's/^\([a-z]*\): \([^#]*\)## \(.*\)/  make \1\t\3/p' $(MAKEFILE_LIST) | expand -t 16
	@echo
	@echo "Run \`. scripts/env.sh\` in a shell before you run cargo there: it sets the environment in which cargo finds libtorch."

setup: ## Install missing requirements: C++ compiler, libtorch (PyTorch 2.13), test runner, programs for tests
	@scripts/setup.sh --test

data: ## Download the data of examples, tests and benchmarks into the cache, and check its digests
	@scripts/setup.sh
	@$(ENV) python3 scripts/fetch_data.py

build: ## Build coord and worker into target/release
	@scripts/build.sh

demo: build data ## Train a small GPT on two workers, resume it from a middle checkpoint, compare the bits
	@$(ENV) python3 scripts/demo.py

test: ## Run all tests that need no GPU
	@$(ENV) scripts/test.sh

gpu: build ## Run the tests that need a CUDA device; one device is enough
	@scripts/setup.sh --runner
	@$(ENV) cargo nextest run --release --locked -p lockstep-worker --test rank -E 'test(/^cuda::/)' --run-ignored only --test-threads 4

exactness: data build ## Compare the bits of runs with different models, optimizers, process counts and interruptions with a reference
	@$(ENV) python3 tests/exactness/matrix.py
	@$(ENV) python3 tests/exactness/portable.py

bench: data build ## Run the benchmarks: training beside PyTorch DDP, checkpoints, hashing, tracking, coordinator, web page
	@scripts/setup.sh --bench
	@scripts/setup.sh --test
	@$(ENV) cargo build --release --locked --workspace --bin ingest
	@$(ENV) cargo build --release --locked --workspace --example rate
	@$(ENV) python3 tests/bench/run.py
	@$(ENV) python3 tests/bench/checkpoint.py
	@$(ENV) python3 tests/bench/hashing.py
	@$(ENV) python3 tests/bench/tracking.py
	@$(ENV) python3 tests/bench/ingest.py
	@$(ENV) python3 tests/bench/coordinator.py
	@$(ENV) $$LOCKSTEP_CACHE/test-tools/bin/python3 tests/bench/page.py

fmt: ## Format the Rust code
	@$(ENV) cargo fmt --all
	@$(ENV) cargo fmt --manifest-path $(EXAMPLE)

lint: ## Run clippy, where a warning is an error, and check for circular dependencies between files and for large folders
	@scripts/setup.sh
	@python3 scripts/rooms.py
	@$(ENV) cargo clippy --release --locked --workspace --all-targets -- -D warnings
	@$(ENV) cargo clippy --release --locked --manifest-path $(EXAMPLE) --target-dir target -- -D warnings
