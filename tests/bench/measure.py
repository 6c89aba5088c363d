"""Measurements of training, with Lockstep or with PyTorch.

Knows the jobs in `tests/bench/jobs` and their twins in `ddp.py`. Does not know which of them are compared, nor how often.
"""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np

import ddp
import launch
from report import OUT, ROOT, medians, spread

JOBS = pathlib.Path(__file__).with_name("jobs")
sys.path.insert(0, str(ROOT / "scripts"))
from local_cluster import Cluster, ClusterError, Machine  # noqa: E402, F401


@dataclasses.dataclass(frozen=True)
class Steps:
    """Numbers of steps: timed ones, and warm-up steps before them."""

    timed: int
    warmup: int

    @property
    def all(self):
        return self.timed + self.warmup


@dataclasses.dataclass(frozen=True)
class Trained:
    """One measurement of Lockstep: steps a second, microseconds a step by phase of process 0, microseconds of each timed step."""

    rate: float
    phases: dict[str, float]
    micros: dict[int, int]


def prepare():
    """Writes the arrays of the job `medium`: the same pixels that `ddp.py` uses."""
    OUT.mkdir(parents=True, exist_ok=True)
    images, classes = ddp.fashion_512()
    np.save(OUT / "fashion_512.npy", images.numpy())
    np.save(OUT / "fashion_classes.npy", classes.numpy())


def pytorch(model, steps, processes=2, communication=True):
    """Steps a second of DDP. Without communication, each process trains alone, all at the same time."""
    arguments = ["--model", model, "--steps", str(steps.timed), "--warmup", str(steps.warmup)]
    line, _ = launch.torchrun(processes, arguments if communication else [*arguments, "--no-comm"])
    return line["steps_per_second"]


def lockstep(model, steps, processes=2, communication=True, sets=(), machines=(Machine(),)):
    """The same for Lockstep: one run on `processes`, or without communication that many runs on one; the slowest counts."""
    ranks = processes if communication else 1
    sets = [f"steps={steps.all}", f"ranks={ranks}", f"batch.size={ranks * ddp.CASES[model].batch}", *sets]
    words = ["submit", JOBS / f"{model}.toml", "--follow", *(word for text in sets for word in ("--set", text))]
    with Cluster(OUT / "cluster", [f"node-{number}" for number in range(processes)], machines) as cluster:
        clients = [
            subprocess.Popen(cluster.command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for _ in range(processes // ranks)
        ]
        for client in clients:
            _, said = client.communicate()
            if client.returncode != 0:
                raise ClusterError(f"`coord submit` of job `{model}` ended with exit code {client.returncode}:\n{said}")
        runs = [trained(cluster.ask("show", run["run"], "--metrics"), steps, ranks) for run in cluster.ask("ps")]
        return min(runs, key=lambda run: run.rate)


def trained(metrics, steps, processes):
    """A run's rate and phases, from the output of `coord show RUN --metrics --json`."""
    seen = {report["process"] for report in metrics["systems"]}
    if seen != set(range(processes)):
        raise ClusterError(f"expected reports of {processes} processes, found those of {len(seen)}")
    micros = {step["step"]: step["micros"] for step in metrics["steps"] if step["step"] > steps.warmup}
    sums, counted, since = {}, 0, 0
    for report in (report for report in metrics["systems"] if report["process"] == 0):
        # A report holds means over the steps since the last one.
        window, begin, since = report["step"] - since, since, report["step"]
        if begin >= steps.warmup:
            counted += window
            for phase, mean in report["phase_micros"].items():
                sums[phase] = sums.get(phase, 0.0) + mean * window
    phases = {phase: total / counted for phase, total in sums.items()}
    return Trained(len(micros) / (sum(micros.values()) / 1e6), phases, micros)


def beside_cells(found):
    """Cells of a row: rates of both sides, their ratio, and for each side its rate divided by its rate without communication."""
    median = medians(found)
    rates = [f"{median['ddp']:.1f}", f"{median['ours']:.1f}", spread(found["ours"], found["ddp"])]
    return [*rates, spread(found["ddp"], found["ddp alone"]), spread(found["ours"], found["ours alone"])]
