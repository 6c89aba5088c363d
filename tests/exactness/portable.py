#!/usr/bin/env python3
"""Compares level `portable` with golden bits: five example jobs, shortened, on two processes.

`portable/JOB.txt` contains the bits of every step and the digest of the final state. They were equal on AMD EPYC (family 25, model 17)
and on Intel Xeon (family 6, models 85 and 207). The table names the first step that differs; `worker --operators` then names the operator.
The exit code is 1 if anything differs. `--update` overwrites the files: only for a change that intends other bits, together with
`lockstep_common::numerics::ARITHMETIC`.
"""

import argparse
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from local_cluster import Cluster, ClusterError  # noqa: E402

GOLDEN = pathlib.Path(__file__).resolve().parent / "portable"
OUT = ROOT / "target" / "exactness"
JOBS = {"digits-mlp": 200, "diamonds-mlp": 60, "fashion-mlp": 60, "fashion-resnet": 6, "gpt-kjv": 30}
RUN_SECONDS = 300  # limit for one run
LONGEST, QUICK = "gpt-kjv", 12  # with `--quick`, this run is cancelled after so many steps
KEYS = ("samples", "loss_bits", "grad_norm_bits", "fingerprint")
PARTS = ("samples", "loss", "gradient norm", "fingerprint of all tensors")


def say(text):
    print(f"portable: {text}", file=sys.stderr, flush=True)


def ended(cluster, run, cancel_at):
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        view = cluster.ask("show", run)
        if view["status"] in ("finished", "failed", "cancelled", "unsaved"):
            return view
        if cancel_at and view["step"] >= cancel_at:
            subprocess.run(cluster.command("cancel", run), check=True, stdout=subprocess.DEVNULL)
            cancel_at = None
        time.sleep(0.2)
    raise ClusterError(f"run {run} did not end within {RUN_SECONDS} s")


def train(cluster, job, steps, cancel_at):
    """Trains a job; returns the lines of its golden file as this machine computes them, without the last one if it cancels the run."""
    sets = [f"steps={steps}", "numerics.level=portable", "report.fingerprints_every=1", "code.allow_dirty=true"]
    arguments = [word for text in sets for word in ("--set", text)]
    path = ROOT / "configs" / "jobs" / f"{job}.toml"
    done = subprocess.run(cluster.command("submit", path, *arguments, "--json"), capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"`coord submit {path}` ended with exit code {done.returncode}:\n{done.stderr}")
    run = cluster.newest_run()["run"]
    view = ended(cluster, run, cancel_at)
    if view["status"] != ("cancelled" if cancel_at else "finished"):
        raise ClusterError(f"run {run} ended as `{view['status']}`: {view['reason']}")
    rows = [" ".join([str(step["step"]), *(step[key] for key in KEYS)]) for step in cluster.steps(run)]
    last = [] if cancel_at else [f"state {view['final_state_digest']}"]
    return [f"# step, {', '.join(PARTS)}: bits", *rows, *last]


def difference(found, expected):
    """Describes the first step that differs and its differing parts; None if all lines are equal."""
    for line, golden in zip(found, expected, strict=False):
        if line != golden:
            parts = [part for part, a, b in zip(PARTS, line.split()[1:], golden.split()[1:], strict=False) if a != b]
            return f"step {line.split()[0]}: {', '.join(parts)}" if not line.startswith("state") else "the final state"
    return None if len(found) == len(expected) else f"{len(found)} lines, {len(expected)} expected"


def cpu():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    fields = dict([part.strip() for part in line.split(":", 1)] for line in info.splitlines() if ":" in line)
    return f"{fields.get('model name', 'unknown')}, family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--update", action="store_true", help="overwrite the golden files with the bits of this machine")
    arguments.add_argument("--quick", action="store_true", help=f"cancel the longest job after {QUICK} steps")
    update, quick = (parsed := arguments.parse_args()).update, parsed.quick
    if update and quick:
        arguments.error("--update needs whole runs")
    differ = 0
    print(f"| portable, {cpu()} | steps | against the golden bits |\n| --- | --- | --- |")
    with Cluster(OUT / "portable", ["node-0", "node-1"]) as cluster:
        for job, steps in JOBS.items():
            cancel_at = QUICK if quick and job == LONGEST else None
            lines = train(cluster, job, steps, cancel_at)
            file = GOLDEN / f"{job}.txt"
            if update:
                file.write_text("\n".join(lines) + "\n")
            golden = file.read_text().splitlines()
            where = difference(lines, golden[: max(len(lines), QUICK + 1)] if cancel_at else golden)
            differ += where is not None
            print(f"| {job} | {sum(line[0].isdigit() for line in lines)} | {'equal' if where is None else 'DIFFERS at ' + where} |", flush=True)
    say(f"{len(JOBS) - differ} of {len(JOBS)} jobs match the golden bits at every step")
    return 1 if differ else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ClusterError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
