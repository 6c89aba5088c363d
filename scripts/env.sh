# The build environment. Source it from bash (`. scripts/env.sh`) to enter it, or run it (`bash scripts/env.sh`) to print
# lines for another shell.
#
# torch-sys finds libtorch through the `python3` that comes first in PATH. Every build must see the same values:
# a different LIBTORCH_USE_PYTORCH makes cargo compile libtorch's bindings again, which takes minutes.

LOCKSTEP_CACHE="${LOCKSTEP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lockstep}"
[ "${LOCKSTEP_CACHE#/}" != "$LOCKSTEP_CACHE" ] || LOCKSTEP_CACHE="$PWD/$LOCKSTEP_CACHE"
torch_venv="$LOCKSTEP_CACHE/torch-2.13.0"
test_tools="$LOCKSTEP_CACHE/test-tools" # not in PATH; tests use this path
LIBTORCH_USE_PYTORCH=1

case "$PATH:" in
    "$torch_venv/bin:"*) ;;
    *) PATH="$torch_venv/bin:$PATH" ;;
esac
# rustup installs cargo here, but only new login shells have this directory in PATH.
if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$PATH:$HOME/.cargo/bin"
fi

export LOCKSTEP_CACHE LIBTORCH_USE_PYTORCH PATH

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    printf 'export %s=%q\n' LOCKSTEP_CACHE "$LOCKSTEP_CACHE" LIBTORCH_USE_PYTORCH "$LIBTORCH_USE_PYTORCH" \
        PATH "$PATH"
fi
