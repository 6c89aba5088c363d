#!/usr/bin/env python3
"""Prints the table of `NUMERICS.md`, "What they cost on a CPU": the cost of each switch, and whether it changes bits.

    python3 tests/bench/levels.py [--rounds 5] [--models small gpt]

Needs `cargo build --release --example rate`. Each switch takes turns with the default, level `exact` on one thread. One process
trains the same steps with both, so the ratio of the rates is the effect of the switch, and equal digests of the final states mean
equal bits. Each cell has the median over rounds, with the smallest and the largest value.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys

import ddp
from measure import JOBS, Steps, prepare
from report import OUT, ROOT, say, spread

RATE = ROOT / "target" / "release" / "examples" / "rate"
# About two seconds on one thread.
STEPS = {"small": Steps(4000, 100), "medium": Steps(350, 10), "resnet": Steps(40, 3), "gpt": Steps(22, 2)}
# For each switch: keys of the job and environment variables that differ from the default.
SWITCHES = {
    "`numerics.level=off`": (["numerics.level=off"], {}),
    "`numerics.level=portable` (the next three)": (["numerics.level=portable"], {}),
    "`ATEN_CPU_CAPABILITY=default`": ([], {"ATEN_CPU_CAPABILITY": "default"}),
    "`MKL_CBWR=COMPATIBLE`": ([], {"MKL_CBWR": "COMPATIBLE"}),
    "`ONEDNN_MAX_CPU_ISA=SSE41`": ([], {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    "`ONEDNN_DEFAULT_FPMATH_MODE=BF16`": ([], {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}),
    "`numerics.threads=2`": (["numerics.threads=2"], {}),
    "nothing: how far equal runs differ": ([], {}),
}
# Prefixes of variables that are not inherited, because they would change the default.
LIBRARIES = ("ATEN_", "DNNL_", "FBGEMM_", "GLIBC_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "TORCH_")


def train(model, sets, variables):
    """Trains one process; returns its steps a second and the digest of its final state."""
    steps = STEPS[model]
    sets = [f"batch.size={ddp.CASES[model].batch}", *sets]
    command = [RATE, JOBS / f"{model}.toml", "--alone", "--processes", "1"]
    command += ["--steps", str(steps.timed), "--warmup", str(steps.warmup)]
    command += [word for text in sets for word in ("--set", text)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(LIBRARIES)}
    done = subprocess.run(command, env=inherited | variables, stdout=subprocess.PIPE, check=True)
    line = json.loads(done.stdout)
    return line["steps_per_second"], line["state"]


def compare(model, sets, variables, rounds):
    """The cell of a model and a switch: the ratio of rates, and whether bits are the `same`, `other` or `changing` by round."""
    rates, states = {"default": [], "switch": []}, {"default": set(), "switch": set()}
    for turn in range(rounds):
        for side in sorted(rates, reverse=turn % 2 == 1):
            rate, state = train(model, *(([], {}) if side == "default" else (sets, variables)))
            rates[side].append(rate)
            states[side].add(state)
    if len(states["default"]) > 1:
        raise SystemExit(f"levels: error: rounds of `{model}` at the default ended with different states: {sorted(states['default'])}")
    bits = "same" if states["switch"] == states["default"] else "other" if len(states["switch"]) == 1 else "changing"
    return f"{spread(rates['switch'], rates['default'])} {bits}", {"rates": rates, "bits": bits}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--models", nargs="*", choices=STEPS, default=list(STEPS))
    arguments = arguments.parse_args()

    prepare()
    processor = next(line for line in open("/proc/cpuinfo") if line.startswith("model name")).split(": ")[1].strip()
    print(
        f"Rate with the switch over rate without, and bits: {datetime.date.today()}, {processor}, {os.cpu_count()} cores, "
        f"{arguments.rounds} rounds.\n"
    )
    row("set", *arguments.models)
    row(*["---"] * (1 + len(arguments.models)))
    raw = {}
    for switch, (sets, variables) in SWITCHES.items():
        cells = []
        for model in arguments.models:
            cell, raw[f"{switch}, {model}"] = compare(model, sets, variables, arguments.rounds)
            cells.append(cell)
        row(switch, *cells)
        say(f"load {os.getloadavg()[0]:.1f}")
    (OUT / "levels.json").write_text(json.dumps(raw, indent=1))


def row(*cells):
    """Prints one row of Markdown at once, because the whole table takes minutes."""
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
