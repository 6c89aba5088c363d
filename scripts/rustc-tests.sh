#!/usr/bin/env bash
# Runs rustc, the first argument, for cargo (`RUSTC_WRAPPER`). It compiles tests without the optimizer, except those that compute, which saves
# `make test` a minute: unit tests compile a crate a second time. Programs and libraries are unaffected.
# In bash, as sh drops variables such as `CARGO_BIN_EXE_worker-rank`.
rustc=$1
shift
case " $* " in
    *" --test "*) ;;
    *) exec "$rustc" "$@" ;;
esac
case " $* " in
    *" --crate-name simulation "* | *" --crate-name lockstep_exchange "* | *" --crate-name lockstep_alarms "* | *" --crate-name runs "*) ;;
    *" --crate-name lockstep_worker "*) set -- "$@" -C opt-level=1 ;;
    *) set -- "$@" -C opt-level=0 ;;
esac
exec "$rustc" "$@"
