#!/usr/bin/env bash
# Installs everything and runs all tests. The test runner comes last, so that its summary is at the end of the output. The times of
# all parts are printed before it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

took=""
part() {
    local name=$1 start=$SECONDS
    shift
    "$@"
    took+=$(printf '%s %ds, ' "$name" $((SECONDS - start)))" "
}

part "set-up" scripts/setup.sh --test-build
. scripts/env.sh
# Tests import PyTorch and MLflow a hundred times. Without cached bytecode each import takes two to three times as long.
unset PYTHONDONTWRITEBYTECODE
part "data" python3 scripts/fetch_data.py
# Runs in parallel with the build: neither the installation nor the end of the build keeps two cores busy.
scripts/setup.sh --test &
tools=$!
# An existing wrapper, for example a compiler cache, is kept.
export RUSTC_WRAPPER=${RUSTC_WRAPPER:-$PWD/scripts/rustc-tests.sh}
# Tests and programs are built together. Separate builds would compile some libraries twice, because tests enable more features. Only
# `make bench` needs `ingest`.
part "build" cargo nextest run --release --locked --workspace --exclude lockstep-ingest --no-run
part "tools" wait $tools
part "doc tests" cargo test --doc --quiet --release --locked --workspace
printf 'test: %s\n' "${took%, *}" >&2
printf 'test: skipping tests that need a CUDA device; run `make gpu` for them\n' >&2
# Some tests mostly wait, for example for the end of a lease, so three more threads than cores are used.
exec cargo nextest run --release --locked --workspace --exclude lockstep-ingest --test-threads $(($(nproc) + 3))
