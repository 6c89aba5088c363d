#!/usr/bin/env python3
"""Points a second that the coordinator accepts, beside TensorBoard's and MLflow's own writers; part of `make bench`.

    python3 tests/bench/ingest.py [--rounds 3]

All three take turns within each round, each with as many points as it writes in some seconds. Lockstep acknowledges points when they
are durable, MLflow when its SQLite has them, TensorBoard when they are in a file. The aims: 200,000 points a second on two cores with
bounded memory, and a series of a million points drawn on 2,000 pixels in less than 50 ms.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

from report import BIN, OUT, alternate, medians, say, spread, table

WRITERS = pathlib.Path(__file__).with_name("writers.py")
#: So many that the long series gets a million points.
POINTS = 10_000_000
OTHERS = {"tensorboard": 50_000, "mlflow": 20_000}


def ours(details):
    """Runs `tests/bench/ingest`, appends its whole result to `details`, and returns the points a second."""
    output = subprocess.run([BIN / "ingest", "rate", BIN / "coord", "--points", str(POINTS)], stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(output.stdout)
    details.append(found)
    return found["points_per_second"]


def theirs(way, points):
    python = pathlib.Path(os.environ["LOCKSTEP_CACHE"]) / "test-tools" / "bin" / "python3"
    output = subprocess.run([python, WRITERS, way, str(points)], stdout=subprocess.PIPE, check=True, text=True)
    return float(output.stdout.splitlines()[-1])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    rounds = arguments.parse_args().rounds
    OUT.mkdir(parents=True, exist_ok=True)
    details = []
    measures = {"ours": lambda: ours(details)}
    measures |= {way: lambda way=way, points=points: theirs(way, points) for way, points in OTHERS.items()}
    say(f"points to trackers: {rounds} rounds")
    found = alternate(rounds, measures)
    median = medians(found)
    rows = [[way, f"{median[way]:,.0f}", spread(found["ours"], found[way])] for way in measures]
    print(table(["points a second", "median", "ours / it"], rows))

    def of(*path):
        values = []
        for one in details:
            for key in path:
                one = one[key]
            values.append(one)
        return f"{statistics.median(values):,.1f} [{min(values):,.1f}, {max(values):,.1f}]"

    print()
    rows = [
        ["points a second until all can be read", of("readable_per_second")],
        ["coordinator's memory before, MB", of("memory_before_mb")],
        ["coordinator's largest memory, MB", of("memory_peak_mb")],
        [f"{details[0]['long_series_points']:,} points on 2,000 pixels, ms", of("query_ms", "median")],
        ["the slowest of 21 such queries, ms", of("query_ms", "max")],
    ]
    print(table(["ours", "median"], rows))
    (OUT / "ingest.json").write_text(json.dumps({"rates": found, "details": details}))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench: error: {error}")
