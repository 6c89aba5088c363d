"""A coordinator and workers on this machine, for the demo and the benchmark: started, asked, and ended again.

Knows the command line and the JSON of `coord`, and nothing else of Lockstep.
"""

import contextlib
import dataclasses
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = ROOT / "target" / "release"
START_SECONDS = 120  # for a process to say that it is there, on a busy machine
STOP_SECONDS = 20  # for a process to end by itself after SIGTERM: a worker ends its own processes first


class ClusterError(Exception):
    """What went wrong, and which log says more."""


def wait_for(what, look, process, log):
    """Looks until there is something to see, the process is gone, or the time is over."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (seen := look()) is not None:
            return seen
        if process.poll() is not None:
            raise ClusterError(f"{what}: the process ended with {process.returncode}; its log is {log}:\n{log.read_text()}")
        time.sleep(0.02)
    raise ClusterError(f"{what}: not after {START_SECONDS} s; its log is {log}")


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where processes run: the address of what listens there, and the command line that enters it."""

    address: str = "127.0.0.1"
    enter: tuple = ()


class Cluster(contextlib.AbstractContextManager):
    """A coordinator, and for each name in `nodes` a worker that takes one process; all they write is in `directory`.

    On this machine, or each node on one of `machines`, and the coordinator on the first. `devices` is what workers offer;
    they share what CUDA devices there are.
    """

    def __init__(self, directory, nodes, machines=(Machine(),), devices="cpu"):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.directory = directory
        self.processes = []
        self.machines = machines
        # From here on a signal unwinds through __exit__ instead of leaving processes behind.
        for ending in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(ending, lambda number, _frame: sys.exit(128 + number))
        try:
            host = machines[0].address
            options = ["serve", "--listen", f"{host}:0", "--data-dir", directory / "coord"]
            coordinator, log = self._start(machines[0], "coord", *options)
            look = lambda: re.search(rf"listening on ({re.escape(host)}:\d+)", log.read_text())
            self.address = wait_for("the coordinator's address", look, coordinator, log)[1]
            for number, node in enumerate(nodes):
                machine = machines[number % len(machines)]
                options = ["--join", self.address, "--name", node, "--slots", "1", "--bind", machine.address]
                options += ["--data-dir", directory / node, "--devices", devices, "--share", f"{number + 1}/{len(nodes)}"]
                worker, log = self._start(machine, "worker", *options, log_name=node)
            look = lambda: len(self.ask("nodes")) == len(nodes) or None
            wait_for(f"{len(nodes)} nodes at the coordinator", look, worker, log)
        except BaseException:
            self.__exit__()
            raise

    def _start(self, machine, program, *arguments, log_name=None):
        log = self.directory / f"{log_name or program}.log"
        with open(log, "wb") as file:
            # Its own session: Ctrl-C reaches this program, which then ends the others in order.
            process = subprocess.Popen(
                [*machine.enter, BIN / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.processes.append(process)
        return process, log

    def __exit__(self, *_error):
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def command(self, *words):
        return [*self.machines[0].enter, BIN / "coord", *map(str, words), "--addr", self.address]

    def show(self, *words):
        """Runs a `coord` command for the person at the terminal."""
        done = subprocess.run(self.command(*words))
        if done.returncode != 0:
            raise ClusterError(f"`coord {' '.join(map(str, words))}` ended with {done.returncode}")

    def ask(self, *words):
        """The answer of a `coord` command that reads, as `--json` prints it."""
        done = subprocess.run(self.command(*words, "--json"), capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterError(f"`coord {' '.join(map(str, words))}` ended with {done.returncode}:\n{done.stderr}")
        return json.loads(done.stdout)

    def newest_run(self):
        """What `coord ps` says of the run that was submitted last."""
        return self.ask("ps")[-1]

    def steps(self, run):
        """The record of a run: for each step its number, the bits of its loss, its time in microseconds."""
        return self.ask("show", run, "--metrics")["steps"]
