#!/usr/bin/env bash
# Builds coord and worker into target/release. In the first build, crates that do not need libtorch compile while libtorch is being
# installed. Crates that need it wait in `scripts/wait/python3`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh --system
. scripts/env.sh
build=(cargo build --release --locked --workspace --exclude lockstep-ingest --bins)
if scripts/setup.sh --has-torch; then
    exec "${build[@]}"
fi

waiting=$(mktemp -d)
trap 'rm -rf "$waiting"' EXIT
(
    scripts/setup.sh && status=0 || status=$?
    touch "$waiting/over"
    exit $status
) &
installer=$!
# Two jobs more than cores, because waiting crates occupy jobs.
status=0
LOCKSTEP_WAIT="$waiting/over" PATH="$PWD/scripts/wait:$PATH" "${build[@]}" --jobs $(($(nproc) + 2)) || status=$?
wait $installer
exit $status
