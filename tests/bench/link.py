#!/usr/bin/env python3
"""Lockstep beside PyTorch DDP with two processes on two machines and a slow link between them.

The machines are two network namespaces of this machine, joined by a pair of interfaces that `tc`'s token bucket limits to
`--mbit` Mbit/s each way. Lockstep's processes then share no memory. Needs root, and `ip` and `tc` of iproute2. Both sides
take turns, as in `run.py`. A share is the rate of both processes together divided by their rate alone.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys

import launch
from measure import ClusterError, Machine, Steps, beside_cells, lockstep, prepare, pytorch
from report import OUT, alternate, say, table

STEPS = {"medium": Steps(190, 10), "gpt": Steps(40, 5), "resnet": Steps(60, 5)}
BURST = "128kb"
LATENCY = "100ms"  # how long a packet may wait for the token bucket before it is dropped


class Link(contextlib.AbstractContextManager):
    """Two network namespaces with a link between them; `machines` says how to start programs in each."""

    def __init__(self, mbit):
        self.names = [f"lockstep-{os.getpid()}-{end}" for end in "ab"]
        addresses = ["10.99.0.1", "10.99.0.2"]
        try:
            for name in self.names:
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            first, second = self.names
            ip("link", "add", "wire", "netns", first, "type", "veth", "peer", "name", "wire", "netns", second)
            for name, address in zip(self.names, addresses):
                ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
                ip("-n", name, "link", "set", "wire", "up")
                shape = ["tbf", "rate", f"{mbit}mbit", "burst", BURST, "latency", LATENCY]
                run("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "wire", "root", *shape)
        except BaseException:
            self.__exit__()
            raise
        variables = ["GLOO_SOCKET_IFNAME=wire", "LOCKSTEP_COORD_ALLOW_REMOTE=true", "LOCKSTEP_WORKER_SHARED_MEMORY=false"]
        enter = [("ip", "netns", "exec", name, "env", *variables) for name in self.names]
        self.machines = tuple(Machine(address, command) for address, command in zip(addresses, enter))

    def __exit__(self, *_error):
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)


def run(*command):
    subprocess.run(command, check=True)


def ip(*words):
    run("ip", *words)


def measure(rounds, models, mbit, raw):
    rows = []
    with Link(mbit) as link:
        for model in models:
            say(f"{model} over {mbit} Mbit/s: {rounds} rounds of four measurements")
            steps = STEPS[model]
            found = alternate(
                rounds,
                {
                    "ddp": lambda: launch.two_machines(link.machines, model, steps),
                    "ddp alone": lambda: pytorch(model, steps, communication=False),
                    "ours": lambda: lockstep(model, steps, machines=link.machines).rate,
                    "ours alone": lambda: lockstep(model, steps, communication=False).rate,
                },
            )
            raw[f"{model} over {mbit} Mbit/s"] = found
            rows.append([f"{model}, steps/s", mbit, *beside_cells(found)])
    head = ["two machines, one process each", "Mbit/s", "PyTorch 2.13 DDP", "Lockstep", "ratio", "DDP's share"]
    print(table([*head, "Lockstep's share"], rows))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--models", nargs="*", choices=STEPS, default=list(STEPS))
    arguments.add_argument("--mbit", type=int, default=1000)
    arguments = arguments.parse_args()
    if os.geteuid() != 0:
        say("error: network namespaces need root; run it with sudo")
        sys.exit(1)
    prepare()
    raw = {}
    measure(arguments.rounds, arguments.models, arguments.mbit, raw)
    (OUT / "link.json").write_text(json.dumps(raw, indent=1))
    say("wrote all measurements to target/bench/link.json")


if __name__ == "__main__":
    try:
        main()
    except (ClusterError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
