"""Seconds from `torchrun` to the end of the first optimizer step of two processes, several times; prints JSON.

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
    """Runs `ddp.py` under torchrun, and returns the line that it printed and when it was started."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), DDP]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.time()
    done = subprocess.run([*command, *arguments], env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout), started


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
