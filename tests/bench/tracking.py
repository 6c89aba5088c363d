#!/usr/bin/env python3
"""Cost of tracking for a run, on three models and two processes; part of `make bench`.

    python3 tests/bench/tracking.py [--rounds 3] [--models small medium gpt]

Two ways take turns within each round: nothing, which is the record alone; and everything, with gradient norms of layers every 10
steps and everything that `report.histograms_every` stands for every 50 steps. A machine's speed changes by more between two runs
than tracking costs. The cost is therefore measured within a run: how much longer the tracked steps and the two steps after each take
than the steps around them. The same steps of the run without tracking show the error of this method. The aims: at most 1 % of a step
by default (every 200 steps), and 3 % with distributions every 50 steps.
"""

import argparse
import json
import statistics
import sys

from measure import ClusterError, Steps, lockstep, prepare
from report import OUT, alternate, say, spread, table

STEPS = {"small": Steps(7900, 100), "medium": Steps(780, 20), "gpt": Steps(196, 4)}
LAYERS, OFTEN, DEFAULT = 10, 50, 200
WAYS = {
    "nothing": ["report.layer_norms_every=0", "report.histograms_every=0"],
    "everything": [f"report.layer_norms_every={LAYERS}", f"report.histograms_every={OFTEN}"],
}


def excess(micros, looked_at):
    """Mean extra microseconds of a tracked step and the two after it over the steps around them, without the outer tenths."""
    found = []
    for step in looked_at:
        around = [micros.get(step + offset) for offset in (-4, -3, -2, -1, 3, 4, 5, 6)]
        own = [micros.get(step + offset) for offset in (0, 1, 2)]
        if None not in around and None not in own:
            found.append(sum(own) - 3 * statistics.fmean(around))
    found.sort()
    cut = len(found) // 10
    return statistics.fmean(found[cut : len(found) - cut])


def costs(micros):
    """Cost of tracking as a share of a median step: by default, and with distributions every 50 steps."""
    middle = statistics.median(micros.values())
    layers = excess(micros, [step for step in micros if step % LAYERS == 0 and step % OFTEN != 0])
    heavy = excess(micros, [step for step in micros if step % OFTEN == 0])
    return [(layers * (1 / LAYERS - 1 / every) + heavy / every) / middle for every in (DEFAULT, OFTEN)]


def percent(values):
    ordered = sorted(100 * value for value in values)
    return f"{statistics.median(ordered):.2f} [{ordered[0]:.2f}, {ordered[-1]:.2f}]"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--models", nargs="*", choices=STEPS, default=list(STEPS))
    given = arguments.parse_args()
    prepare()
    rows, raw = [], {}
    for model in given.models:
        say(f"cost of tracking, {model}: {given.rounds} rounds")
        measures = {way: lambda sets=sets: lockstep(model, STEPS[model], sets=sets) for way, sets in WAYS.items()}
        found = alternate(given.rounds, measures)
        rates = {way: [run.rate for run in runs] for way, runs in found.items()}
        shares = {way: list(zip(*(costs(run.micros) for run in runs))) for way, runs in found.items()}
        raw[model] = {"rates": rates, "shares": shares}
        (default, often), (nothing, _) = shares["everything"], shares["nothing"]
        rows.append([model, percent(default), percent(often), percent(nothing), spread(rates["nothing"], rates["everything"])])
    print(table(["% of a step", "default", "every 50", "without tracking", "step: run / run without"], rows))
    (OUT / "tracking.json").write_text(json.dumps(raw))


if __name__ == "__main__":
    try:
        main()
    except ClusterError as error:
        sys.exit(f"bench: error: {error}")
