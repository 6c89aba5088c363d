#!/usr/bin/env python3
"""First part of `make bench`: tables of Lockstep beside PyTorch DDP on this machine.

Both sides take turns within each round, so that other load on the machine affects both. The tables show medians over rounds,
and for each ratio also the smallest and the largest value. Models, samples a step, optimizer and thread count are equal:
`tests/bench/jobs` for Lockstep, `ddp.py` for PyTorch. A share compares a side with itself: the rate of two processes that train
together divided by the rate of two that train alone at the same time. `cost.py` measures the cost of exactness; `--cost` measures
only that.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time

import cost
import launch
from measure import JOBS, ClusterError, Steps, beside_cells, lockstep, prepare, pytorch
from report import BIN, OUT, alternate, medians, say, spread, table

# A few seconds for each model.
STEPS = {"small": Steps(3000, 100), "medium": Steps(400, 20), "resnet": Steps(60, 5), "gpt": Steps(40, 5)}


def lockstep_launch():
    """Seconds of a whole `coord submit --local 2` with one step: starts coordinator, workers and processes, and ends them all."""
    shutil.rmtree(OUT / "launch", ignore_errors=True)
    started = time.monotonic()
    subprocess.run(
        [BIN / "coord", "submit", JOBS / "small.toml", "--local", "2", "--data-dir", OUT / "launch", "--set", "steps=1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - started


def beside_ddp(rounds, models, raw):
    """Measures rates, shares and launch of both sides, and prints them as a table."""
    rows = []
    for model in models:
        say(f"{model}: {rounds} rounds of four measurements")
        steps = STEPS[model]
        found = alternate(
            rounds,
            {
                "ddp": lambda: pytorch(model, steps),
                "ddp alone": lambda: pytorch(model, steps, communication=False),
                "ours": lambda: lockstep(model, steps).rate,
                "ours alone": lambda: lockstep(model, steps, communication=False).rate,
            },
        )
        raw[model] = found
        rows.append([f"{model}, steps/s", *beside_cells(found)])
    say("launch")
    found = alternate(rounds, {"ddp": launch.launch, "ours": lockstep_launch})
    raw["launch"] = found
    median = medians(found)
    ratio = spread(found["ddp"], found["ours"])
    rows.append(["launch to first step, s", f"{median['ddp']:.2f}", f"{median['ours']:.2f}", ratio, "", ""])
    head = ["two processes, one thread each", "PyTorch 2.13 DDP", "Lockstep", "ratio", "DDP's share", "Lockstep's share"]
    print(table(head, rows))
    print("\nA share is the rate of two processes together divided by their rate alone.")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--models", nargs="*", choices=STEPS, default=list(STEPS))
    arguments.add_argument("--cost", action="store_true", help="measure only the cost of exactness")
    arguments = arguments.parse_args()

    prepare()
    raw = {}
    if not arguments.cost:
        beside_ddp(arguments.rounds, arguments.models, raw)
        print()
    cost.measure(arguments.rounds, [model for model in arguments.models if model in cost.STEPS], raw)
    (OUT / "result.json").write_text(json.dumps(raw, indent=1))
    say("wrote all measurements to target/bench/result.json")


if __name__ == "__main__":
    try:
        main()
    except (ClusterError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
