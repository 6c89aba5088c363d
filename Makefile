# Everything a person types. Each target works from a new clone: it installs what is missing first (scripts/setup.sh).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup data build demo test gpu exactness bench fmt lint

ENV := . scripts/env.sh;
EXAMPLE := configs/examples/denoise/Cargo.toml

help: ## this list
	@echo "Lockstep: bit-for-bit repeatable data-parallel training."
	@echo
	@sed -n 's/^\([a-z]*\): \([^#]*\)## \(.*\)/  make \1\t\3/p' $(MAKEFILE_LIST) | expand -t 16
	@echo
	@echo "\`. scripts/env.sh\` brings a shell the environment in which cargo finds libtorch."

setup: ## installs what is missing: C++ compiler, libtorch (PyTorch 2.13), the test runner, what tests run
	@scripts/setup.sh --test

data: ## fetches the real data into the cache and checks its digests
	@scripts/setup.sh
	@$(ENV) python3 scripts/fetch_data.py

build: ## builds coord and worker into target/release
	@scripts/build.sh

demo: build data ## trains a small GPT on two workers, resumes it from a middle checkpoint, compares the bits
	@$(ENV) python3 scripts/demo.py

test: ## runs every test
	@$(ENV) scripts/test.sh

gpu: build ## runs the tests that need a CUDA device; one is enough
	@scripts/setup.sh --runner
	@$(ENV) cargo nextest run --release --locked -p lockstep-worker --test rank -E 'test(/^cuda::/)' --run-ignored only --test-threads 4

exactness: data build ## models, optimizers, process counts and interruptions against one reference: bit-equal or not
	@$(ENV) python3 tests/exactness/matrix.py
	@$(ENV) python3 tests/exactness/portable.py

bench: data build ## measures beside PyTorch DDP, what exactness, checkpoints and tracking cost, hashing, tracking and page beside aims and others'
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

fmt: ## formats the Rust code
	@$(ENV) cargo fmt --all
	@$(ENV) cargo fmt --manifest-path $(EXAMPLE)

lint: ## clippy, where a warning is an error; circles between files, and folders that are too full
	@scripts/setup.sh
	@python3 scripts/rooms.py
	@$(ENV) cargo clippy --release --locked --workspace --all-targets -- -D warnings
	@$(ENV) cargo clippy --release --locked --manifest-path $(EXAMPLE) --target-dir target -- -D warnings
