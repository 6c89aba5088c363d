#!/usr/bin/env python3
"""Runs `make demo`: two workers train a small GPT, and a run that is resumed from a middle checkpoint ends with the same bits."""

import subprocess
import sys

from local_cluster import ROOT, Cluster, ClusterError

JOB = ROOT / "configs" / "jobs" / "gpt-kjv.toml"


def say(text=""):
    print(text, file=sys.stderr, flush=True)


def middle(checkpoints):
    """The checkpoint halfway through the run, by step."""
    ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint["step"])
    if len(ordered) < 2:
        raise ClusterError(f"cannot resume: the run has {len(ordered)} checkpoints, and none before its last step")
    return ordered[(len(ordered) - 1) // 2]


def is_dirty():
    """Whether the work tree has uncommitted changes, which `coord submit` accepts only with `--allow-dirty`."""
    status = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, check=False)
    return status.returncode == 0 and bool(status.stdout.strip())


def main():
    with Cluster(ROOT / "target" / "demo", ["node-a", "node-b"], devices="auto") as cluster:
        say(f"demo: started a coordinator at {cluster.address} and two workers; logs and checkpoints are in target/demo")
        say(f"\n$ coord submit {JOB.relative_to(ROOT)} --follow")
        cluster.show("submit", JOB, "--follow", *(["--allow-dirty"] if is_dirty() else []))
        first = cluster.newest_run()

        say(f"\n$ coord checkpoints {first['run']}")
        cluster.show("checkpoints", first["run"])
        chosen = middle(cluster.ask("checkpoints", first["run"]))
        say(f"\n$ coord resume {chosen['id'][:12]} --follow        (step {chosen['step']}, as a new run)")
        cluster.show("resume", chosen["id"], "--follow")
        second = cluster.newest_run()

        losses = [{step["step"]: step["loss_bits"] for step in cluster.steps(run["run"])} for run in (first, second)]
    common = losses[0].keys() & losses[1].keys()
    equal = sum(losses[0][step] == losses[1][step] for step in common)
    states = [run["final_state_digest"] for run in (first, second)]
    say(f"\nfinal state of {first['run']}: {states[0]}")
    say(f"final state of {second['run']}: {states[1]} (resumed)")
    say(f"{equal} of {len(common)} common steps have equal loss bits")
    if first["run"] == second["run"] or not common or equal < len(common) or None in states or states[0] != states[1]:
        raise ClusterError("the bits of the resumed run differ from those of the first run")


if __name__ == "__main__":
    try:
        main()
    except ClusterError as error:
        say(f"demo: error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
