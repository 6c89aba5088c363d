#!/usr/bin/env bash
# Runs rustc, the first argument, for cargo (`RUSTC_WRAPPER`). It compiles the tests of some crates without the optimizer, which saves
# `make test` a minute: unit tests compile a crate a second time, and these tests compute little. Programs and libraries are unaffected.
# In bash, as sh drops variables such as `CARGO_BIN_EXE_worker-rank`.
rustc=$1
shift
case " $* " in
    *" --test "*) ;;
    *) exec "$rustc" "$@" ;;
esac
case " $* " in
    *" --crate-name lockstep_coordinator "* | *" --crate-name lockstep_core "* | *" --crate-name lockstep_tracking "* | \
        *" --crate-name lockstep_host "* | *" --crate-name lockstep_net "* | *" --crate-name lockstep_store "* | \
        *" --crate-name lockstep_common "* | *" --crate-name lockstep_rpc "* | *" --crate-name lockstep_data "* | \
        *" --crate-name state "* | *" --crate-name conformance "*)
        exec "$rustc" "$@" -C opt-level=0
        ;;
esac
exec "$rustc" "$@"
