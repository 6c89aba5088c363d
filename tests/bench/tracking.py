#!/usr/bin/env python3
"""What tracking costs a run, for `make bench`, on three models and two processes.

    python3 tests/bench/tracking.py [--rounds 3] [--models small medium gpt]

Three ways take turns within each round: *nothing*, the record alone; *default*, with norms of gradients by layer every 10 steps
and all that `report.histograms_every` stands for every 200; *every 50*, the same with that every 50 steps. The aims: at
most 1 % and 3 % of a step.
"""

import argparse
import json
import sys

from measure import OUT, ClusterError, Steps, alternate, lockstep, medians, prepare, say, spread, table

STEPS = {"small": Steps(7900, 100), "medium": Steps(780, 20), "gpt": Steps(196, 4)}
WAYS = {
    "nothing": ["report.layer_norms_every=0", "report.histograms_every=0"],
    "default": [],
    "every 50": ["report.histograms_every=50"],
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--models", nargs="*", choices=STEPS, default=list(STEPS))
    given = arguments.parse_args()
    prepare()
    rows, raw = [], {}
    for model in given.models:
        say(f"{model}: {given.rounds} rounds of what tracking costs")
        measures = {way: lambda sets=sets: lockstep(model, STEPS[model], sets=sets).rate for way, sets in WAYS.items()}
        found = raw[model] = alternate(given.rounds, measures)
        median = medians(found)
        costs = [spread(found["nothing"], found[way]) for way in ("default", "every 50")]
        rows.append([model, *(f"{median[way]:.1f}" for way in WAYS), *costs])
    head = ["two processes, steps/s", *WAYS, "step: default / nothing", "step: every 50 / nothing"]
    print(table(head, rows))
    (OUT / "tracking.json").write_text(json.dumps(raw))


if __name__ == "__main__":
    try:
        main()
    except ClusterError as error:
        sys.exit(f"bench: error: {error}")
