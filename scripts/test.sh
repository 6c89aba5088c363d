#!/usr/bin/env bash
# Every test, after set-up. The unit, simulation, process and oracle tests come last, so that the runner's own closing
# line is the last thing on the screen; before it stands how long each part took.
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
# Tests import PyTorch and MLflow a hundred times, which takes two to three times as long where Python keeps no bytecode.
unset PYTHONDONTWRITEBYTECODE
part "data" python3 scripts/fetch_data.py
# Installing does not keep two cores busy, nor does compiling at its end.
scripts/setup.sh --test &
tools=$!
# With the programs: built by themselves, they would be built twice, as tests ask some libraries for more. Without `ingest`, which is
# for `make bench` alone.
# Set, it stays: a cache of compiled crates, for example.
export RUSTC_WRAPPER=${RUSTC_WRAPPER:-$PWD/scripts/rustc-tests.sh}
part "build" cargo nextest run --release --locked --workspace --exclude lockstep-ingest --no-run
part "tools" wait $tools
part "doc tests" cargo test --doc --quiet --release --locked --workspace
printf 'test: %s\n' "${took%, *}" >&2
printf 'test: those that need a CUDA device are skipped here; `make gpu` runs them\n' >&2
# Some tests wait, for a lease to end and the like: three more than there are cores fill the time.
exec cargo nextest run --release --locked --workspace --exclude lockstep-ingest --test-threads $(($(nproc) + 3))
