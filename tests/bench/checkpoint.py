#!/usr/bin/env python3
"""Cost of a checkpoint of 503 MB for the process that writes it, beside PyTorch's `torch.distributed.checkpoint` (DCP).

    python3 tests/bench/checkpoint.py [--rounds 10]

`make bench` runs it. Both sides take turns and train the same model with AdamW, one process and one training thread each: Lockstep
runs `jobs/checkpoint.toml` through the example `rate`, PyTorch runs `dcp.py`.

Held: seconds in which the checkpoint keeps the training thread from training, including fingerprints and checks of the state.
Lost: seconds of 20 steps with a checkpoint minus those of 20 steps without. Durable: seconds until everything is written; Lockstep
also hashes, and syncs contents and names. First: held by a process's first checkpoint. Each cell is the median over rounds, with the
smallest and the largest value.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import dcp
from measure import JOBS, prepare
from report import BIN, OUT, alternate, say, table

FOLDER = OUT / "checkpoint"
# As in the job: checkpoints at steps 30 and 60.
EVERY, STEPS, WARMUP = 30, 80, 10
NAMES = {
    "save": "DCP `save`",
    "async_save": "DCP `async_save`",
    "stager": "DCP `async_save`, kept stager",
    "thread": "DCP `async_save`, kept stager on a thread",
    "ours": "Lockstep",
}
# Phases of a step that take long only at a checkpoint.
HELD = ("checkpoint", "record", "other")


def lockstep(rate):
    """Runs one process: a window of steps without a checkpoint, the first checkpoint, and a second one."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    command = [rate, JOBS / "checkpoint.toml", "--alone", "--processes", "1", "--store", FOLDER]
    command += ["--steps", str(STEPS - WARMUP), "--warmup", str(WARMUP)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    shutil.rmtree(FOLDER)
    line = json.loads(done.stdout)
    micros = {int(step): value for step, value in line["micros"].items()}

    def window(since):
        # Step 30 takes the checkpoint; its cost is counted with steps 30 and 31.
        return sum(micros[step] for step in range(since, since + dcp.WINDOW)) / 1e6

    def held(since):
        reports = [report for report in line["reports"] if since <= report["step"] < since + dcp.WINDOW]
        return sum(report["micros"][phase] * report["steps"] for report in reports for phase in HELD) / 1e6

    without = [micros[step] / 1e6 for step in range(WARMUP, WARMUP + dcp.WINDOW)]
    found = {
        "first_s": held(EVERY),
        "held_s": held(2 * EVERY),
        "lost_s": window(2 * EVERY) - sum(without),
        "durable_s": line["durable_ms"][str(2 * EVERY)] / 1e3,
    }
    return {"step_s": statistics.median(without), "ways": {"ours": found}}


def pytorch(turn):
    shutil.rmtree(FOLDER, ignore_errors=True)
    command = [sys.executable, "-W", "ignore", pathlib.Path(dcp.__file__), FOLDER, "--turn", str(turn)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def cell(values):
    ordered = sorted(values)
    return f"{statistics.median(ordered):.3f} [{ordered[0]:.3f}, {ordered[-1]:.3f}]"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--rate", type=pathlib.Path, default=BIN / "examples" / "rate", help="path of the built example `rate`")
    arguments = arguments.parse_args()

    prepare()
    turns = iter(range(arguments.rounds))
    say(f"checkpoint: {arguments.rounds} rounds of two measurements")
    found = alternate(arguments.rounds, {"pytorch": lambda: pytorch(next(turns)), "ours": lambda: lockstep(arguments.rate)})
    (OUT / "checkpoint.json").write_text(json.dumps(found, indent=1))
    processor = next(line for line in open("/proc/cpuinfo") if line.startswith("model name")).split(": ")[1].strip()
    steps = {side: cell([run["step_s"] for run in runs]) for side, runs in found.items()}
    print(
        f"A checkpoint of {found['pytorch'][0]['bytes'] / 1e6:.0f} MB, in seconds: {processor}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, {arguments.rounds} rounds. A step: {steps['pytorch']} in PyTorch, {steps['ours']} in Lockstep.\n"
    )
    rows = []
    for side in ("pytorch", "ours"):
        for way in found[side][0]["ways"]:
            runs = [run["ways"][way] for run in found[side]]
            rows.append([way, *(cell([run[what] for run in runs]) for what in ("first_s", "held_s", "lost_s", "durable_s"))])
    rows.sort(key=lambda row: list(NAMES).index(row[0]))
    print(table(["", "first", "held", "lost", "durable"], [[NAMES[row[0]], *row[1:]] for row in rows]))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
