"""Measures seconds from the start of `torchrun` to the end of the first optimizer step of two processes; prints JSON.

    python3 tests/bench/launch.py --times 5
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

DDP = pathlib.Path(__file__).with_name("ddp.py")


def torchrun(processes, arguments):
    """Runs `ddp.py` under torchrun; returns the parsed line that it printed, and the time of its start."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), DDP]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.time()
    done = subprocess.run([*command, *arguments], env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout), started


def two_machines(machines, model, steps):
    """Steps a second of `ddp.py` with one process on each of two machines."""
    rendezvous = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", machines[0].address, "--master-port", "29511"]
    arguments = ["--model", model, "--steps", str(steps.timed), "--warmup", str(steps.warmup)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = []
    for rank, machine in enumerate(machines):
        command = [*machine.enter, sys.executable, "-m", "torch.distributed.run", *rendezvous, "--node-rank", str(rank)]
        started.append(subprocess.Popen([*command, DDP, *arguments], env=environment, stdout=subprocess.PIPE))
    said = [process.communicate()[0] for process in started]
    for process in started:
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return json.loads(said[0])["steps_per_second"]


def launch(model="small"):
    line, started = torchrun(2, ["--model", model, "--steps", "0", "--warmup", "1"])
    return line["first_step_at"] - started


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--times", type=int, default=5)
    seconds = [launch() for _ in range(arguments.parse_args().times)]
    print(json.dumps({"side": "pytorch", "what": "launch to first step", "median_s": statistics.median(seconds), "all_s": seconds}))


if __name__ == "__main__":
    main()
