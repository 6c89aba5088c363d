"""Starts a coordinator and workers on this machine, queries them, and ends them: for the demo and the benchmarks.

It depends only on the command line and the JSON of `coord`.
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
START_SECONDS = 120  # time for a process to start, on a busy machine
STOP_SECONDS = 20  # time for a process to end after SIGTERM: a worker first ends its own processes


class ClusterError(Exception):
    """An error message, with the path of the log."""


def wait_for(what, look, process, log):
    """Calls `look` until it returns a value, and returns that. An error if the process ends or `START_SECONDS` pass."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (seen := look()) is not None:
            return seen
        if process.poll() is not None:
            raise ClusterError(
                f"waited for {what}: the process ended with code {process.returncode}; its log is {log}:\n{log.read_text()}"
            )
        time.sleep(0.02)
    raise ClusterError(f"waited for {what}: timed out after {START_SECONDS} s; the log of the process is {log}")


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine or namespace for processes: the address to listen on, and the command line that runs a program in it."""

    address: str = "127.0.0.1"
    enter: tuple = ()


class Cluster(contextlib.AbstractContextManager):
    """A coordinator, and for each name in `nodes` a worker with one slot. They write all their files into `directory`.

    They run on this machine, or the nodes run on `machines` in turn, and the coordinator on the first. `devices` is the worker's
    option of this name. Workers share the CUDA devices.
    """

    def __init__(self, directory, nodes, machines=(Machine(),), devices="cpu"):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.directory = directory
        self.processes = []
        self.machines = machines
        # From here on a signal raises SystemExit, so that __exit__ ends the processes.
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
            # A session of its own: Ctrl-C reaches only this program, which then ends the others in order.
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
        """Runs a `coord` command and shows its output at the terminal."""
        done = subprocess.run(self.command(*words))
        if done.returncode != 0:
            raise ClusterError(f"`coord {' '.join(map(str, words))}` ended with code {done.returncode}")

    def ask(self, *words):
        """Runs a `coord` command with `--json` and returns the decoded document."""
        done = subprocess.run(self.command(*words, "--json"), capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterError(f"`coord {' '.join(map(str, words))}` ended with code {done.returncode}:\n{done.stderr}")
        return json.loads(done.stdout)

    def newest_run(self):
        """The row of `coord ps` for the run that was submitted last."""
        return self.ask("ps")[-1]

    def steps(self, run):
        """The record of a run: for each step its number, the bits of its loss, its time in microseconds."""
        return self.ask("show", run, "--metrics")["steps"]
