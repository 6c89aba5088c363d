#!/usr/bin/env python3
"""`make bench`: Lockstep beside PyTorch DDP on this machine, one table.

Both sides take turns within each round, so that what else the machine does falls on both; the table shows medians over
rounds, and of each ratio also the least and the greatest. Same models, samples a step, optimizer and thread count:
`tests/bench/jobs` for Lockstep, `ddp.py` for PyTorch. A share compares a side with itself: two processes that train
together against two that train alone, side by side.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np

import ddp
import launch

ROOT = pathlib.Path(__file__).resolve().parents[2]
JOBS = pathlib.Path(__file__).with_name("jobs")
OUT = ROOT / "target" / "bench"
sys.path.insert(0, str(ROOT / "scripts"))
from local_cluster import BIN, Cluster, ClusterError  # noqa: E402

# Steps to time, steps before them: some seconds each.
STEPS = {"small": (3000, 100), "medium": (400, 20), "resnet": (60, 5), "gpt": (40, 5)}


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def prepare():
    """Writes the medium job's arrays: the same pixels that `ddp.py` takes."""
    OUT.mkdir(parents=True, exist_ok=True)
    images, classes = ddp.fashion_512()
    np.save(OUT / "fashion_512.npy", images.numpy())
    np.save(OUT / "fashion_classes.npy", classes.numpy())


def pytorch(model, communication):
    timed, warmup = STEPS[model]
    arguments = ["--model", model, "--steps", str(timed), "--warmup", str(warmup)]
    line, _ = launch.torchrun(2, arguments if communication else [*arguments, "--no-comm"])
    return line["steps_per_second"]


def rate(cluster, run, warmup):
    micros = [step["micros"] for step in cluster.steps(run) if step["step"] > warmup]
    return len(micros) / (sum(micros) / 1e6)


def lockstep(model, communication):
    timed, warmup = STEPS[model]
    sets = [f"steps={timed + warmup}"]
    if not communication:
        sets += ["ranks=1", f"batch.size={ddp.CASES[model].batch}"]
    words = ["submit", JOBS / f"{model}.toml", "--follow", *(word for text in sets for word in ("--set", text))]
    with Cluster(OUT / "cluster", ["node-a", "node-b"]) as cluster:
        clients = [
            subprocess.Popen(cluster.command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for _ in range(1 if communication else 2)
        ]
        for client in clients:
            _, said = client.communicate()
            if client.returncode != 0:
                raise ClusterError(f"`coord submit {model}` ended with {client.returncode}:\n{said}")
        return min(rate(cluster, run["run"], warmup) for run in cluster.ask("ps"))


def lockstep_launch():
    """From nothing to the end of a one-step run: coordinator, two workers, their processes, and all ended again."""
    shutil.rmtree(OUT / "launch", ignore_errors=True)
    started = time.monotonic()
    subprocess.run(
        [BIN / "coord", "submit", JOBS / "small.toml", "--local", "2", "--data-dir", OUT / "launch", "--set", "steps=1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - started


def spread(over, under):
    """The ratio of two measures round by round: its median, and its least and greatest value."""
    ratios = sorted(a / b for a, b in zip(over, under))
    return f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"


def alternate(rounds, measures):
    """Medians of measures that take turns, the order reversed every other round."""
    found = {name: [] for name in measures}
    for turn in range(rounds):
        for name in sorted(measures, reverse=turn % 2 == 1):
            found[name].append(measures[name]())
    return {name: statistics.median(values) for name, values in found.items()}, found


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--models", nargs="*", choices=STEPS, default=list(STEPS))
    arguments = arguments.parse_args()

    prepare()
    raw = {}
    rows = ["| two processes, one thread each | PyTorch 2.13 DDP | Lockstep | ratio | DDP's share | Lockstep's share |"]
    rows.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for model in arguments.models:
        say(f"{model}: {arguments.rounds} rounds of four measurements")
        median, found = alternate(
            arguments.rounds,
            {
                "ddp": lambda: pytorch(model, True),
                "ddp alone": lambda: pytorch(model, False),
                "ours": lambda: lockstep(model, True),
                "ours alone": lambda: lockstep(model, False),
            },
        )
        raw[model] = found
        rows.append(
            f"| {model}, steps/s | {median['ddp']:.1f} | {median['ours']:.1f} | {spread(found['ours'], found['ddp'])} "
            f"| {spread(found['ddp'], found['ddp alone'])} | {spread(found['ours'], found['ours alone'])} |"
        )
    say("launch")
    median, found = alternate(arguments.rounds, {"ddp": launch.launch, "ours": lockstep_launch})
    raw["launch"] = found
    rows.append(
        f"| launch to first step, s | {median['ddp']:.2f} | {median['ours']:.2f} | {spread(found['ddp'], found['ours'])} | | |"
    )
    (OUT / "result.json").write_text(json.dumps(raw, indent=1))
    print("\n".join(rows))
    say("a share is the rate of two processes together over their rate alone; all measurements in target/bench/result.json")


if __name__ == "__main__":
    try:
        main()
    except (ClusterError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
