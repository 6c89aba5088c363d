"""Cost of exactness, for `make bench`: step rates, and a profile of a step.

Four ways to train the same job take turns: PyTorch's DDP over gloo; `native`, Lockstep with the back end's own all-reduce;
`tree`, the defaults (level `exact`, the reduction tree, the record, fingerprints every 200 steps); and, on two processes only,
`off`, which is `tree` without determinism. Every process computes equally many samples a step, whatever the number of processes.

The profile is that of process 0, which writes the record, from Lockstep's own telemetry. The last column adds `other` to
`record`, because the hash that chains the record is counted as `other`.
"""

import dataclasses
import os
import statistics

from measure import Steps, lockstep, pytorch
from report import alternate, medians, say, spread, table

# Steps on two processes; four processes make half of them. The third model is gpt: like resnet it computes more than it
# communicates, and its gradients are ten times as large.
STEPS = {"small": Steps(3900, 100), "medium": Steps(380, 20), "gpt": Steps(56, 4)}
PROCESSES = (2, 4)
WAYS = {"native": ["numerics.reduction=native"], "off": ["numerics.level=off"], "tree": []}
PHASES = ("data", "forward", "backward", "reduction", "optimizer", "record", "checkpoint", "other")


def steps_for(model, processes):
    """Halves the steps for four processes: they share two cores, so the same number would take twice as long."""
    steps = STEPS[model]
    return dataclasses.replace(steps, timed=steps.all * 2 // processes - steps.warmup)


def measure(rounds, models, raw):
    """Measures, prints the tables, and stores their raw numbers in `raw`."""
    rates, profiles = [], []
    for model in models:
        for processes in PROCESSES:
            say(f"cost of exactness, {model} on {processes} processes: {rounds} rounds")
            found = take_turns(rounds, model, processes)
            rates.append([model, processes, *rate_cells(found)])
            profile = {phase: [run.phases[phase] for run in found["tree"]] for phase in PHASES}
            profiles.append([model, processes, *profile_cells(profile)])
            raw[f"cost, {model} on {processes}"] = {**rates_of(found), "phase_micros": profile}
    cores = os.cpu_count()
    print(
        f"Cost of exactness: steps a second, one thread for each process; this machine has {cores} cores"
        + (", which four processes share on both sides.\n" if cores < 4 else ".\n")
    )
    head = ["model", "processes", "DDP", "native", "off", "tree", "tree / DDP", "tree / native", "tree / off"]
    print(table(head, rates))
    print("\nProfile of a step of `tree` in process 0, percent of its time; `reduction` includes waiting for other processes.\n")
    print(table(["model", "processes", "step, µs", *PHASES, "record and other"], profiles))


def take_turns(rounds, model, processes):
    steps = steps_for(model, processes)
    measures = {"ddp": lambda: pytorch(model, steps, processes)}
    for way, sets in WAYS.items():
        if way != "off" or processes == 2:
            measures[way] = lambda sets=sets: lockstep(model, steps, processes, sets=sets)
    return alternate(rounds, measures)


def rates_of(found):
    return {way: values if way == "ddp" else [run.rate for run in values] for way, values in found.items()}


def rate_cells(found):
    rates = rates_of(found)
    median = medians(rates)
    ways = ("ddp", *WAYS)
    return [
        *(f"{median[way]:.1f}" if way in median else "" for way in ways),
        *(spread(rates["tree"], rates[way]) if way in rates else "" for way in ways if way != "tree"),
    ]


def profile_cells(profile):
    """Cells of a profile: each is the median over rounds of a phase's share of the step."""
    totals = [sum(spent) for spent in zip(*profile.values())]

    def percent(*phases):
        parts = (sum(spent) / total for *spent, total in zip(*(profile[phase] for phase in phases), totals))
        return f"{100 * statistics.median(parts):.1f}"

    return [f"{statistics.median(totals):.0f}", *map(percent, PHASES), percent("record", "other")]
