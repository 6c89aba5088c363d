#!/usr/bin/env python3
"""Cost of placements, reports and ended runs for the coordinator; part of `make bench`.

    python3 tests/bench/coordinator.py [--only cost|ended] [--runs 100 1000] [--rounds 1] [--base COORD INGEST]

`tests/bench/ingest` simulates nodes with eight CPU slots each.

cost: places jobs of 10, 100 and 1,000 processes. All processes report at once, and again when all reports are acknowledged. The same
for jobs that start from a checkpoint with a large manifest.

ended: lets `--runs` runs of five steps with two checkpoints each end, eight at a time; 10,000 runs take some minutes.

With `--base`, another build's `coord` and its own `ingest` take turns with this build's. CPU times are user and system time of the
coordinator, which Linux counts in hundredths of a second. Other times are wall-clock times, and grow with the load of the machine.
"""

import argparse
import json
import statistics
import subprocess
import sys

from report import BIN, OUT, alternate, say, table

ANSWERS = ("coord ps --json", "list of the page", "coord show of the oldest", "submit", "annotate")


def ingest(programs, *words):
    """Runs `ingest` and parses the lines of JSON that it prints."""
    coord, program = programs
    output = subprocess.run([program, words[0], coord, *words[1:]], stdout=subprocess.PIPE, check=True, text=True)
    return [json.loads(line) for line in output.stdout.splitlines()]


def middle(found, *path):
    """The median over rounds of the value at `path`, or None if a round lacks it."""
    values = []
    for one in found:
        for key in path:
            one = one.get(key, {})
        if one == {}:
            return None
        values.append(one)
    return statistics.median(values)


def number(value, scale=1.0, digits=0):
    return "–" if value is None else f"{value / scale:,.{digits}f}"


def cost_tables(sides):
    """Tables of placements and reports, with a row for each number of processes and side."""
    placed, reported = [], []
    for index, case in enumerate(next(iter(sides.values()))[0]):
        for side, rounds in sides.items():
            found = [cases[index]["found"] for cases in rounds]
            manifest = number(case["manifest_bytes"], 1e6)
            head = [side, f"{case['processes']:,}", manifest]
            if any("refused" in one for one in found):
                placed.append([*head, "refused", *[""] * 7])
                reported.append([*head, "refused", *[""] * 4])
                continue
            to = [[number(middle(found, until, "cpu_ms"), 1, 1)] + [number(middle(found, until, of), 1e3) for of in ("sent", "written", "disk")] for until in ("told", "started")]
            placed.append([*head, *to[0], *to[1], number(middle(found, "started_ms"))])
            report = [middle(found, "report", of) for of in ("cpu_ms", "sent", "written", "median_ms", "p99_ms")]
            digits = (3, 0, 0, 1, 1)
            reported.append([*head, *(number(value, 1, digit) for value, digit in zip(report, digits))])
    head = ["a placement", "processes", "manifest, MB"]
    until = [f"{what} until {end}" for end in ("told", "started") for what in ("CPU ms", "kB sent", "kB written", "kB to disk")]
    yield table([*head, *until, "ms on the clock"], placed)
    yield table(["a report", *head[1:], "CPU ms", "B sent", "B written", "median ms to its acknowledgement", "p99 ms"], reported)


def ended_tables(sides):
    """Tables of memory and start, and of answers, with a row for each number of runs and side."""
    kept, answered = [], []
    for index, case in enumerate(next(iter(sides.values()))[0]):
        for side, rounds in sides.items():
            found = [cases[index] for cases in rounds]
            head = [side, f"{case['runs']:,}"]
            memory = ("memory_empty", "memory", "memory_peak", "memory_restarted")
            times = ("first_cpu_ms", "last_cpu_ms", "start_ms", "start_cpu_ms")
            kept.append([*head, *(number(middle(found, of), 1e6) for of in memory), *(number(middle(found, of), 1, 1) for of in times)])
            answered.append([*head, *(f"{number(middle(found, 'answers', of, 'median_ms'), 1, 1)} / {number(middle(found, 'answers', of, 'cpu_ms'), 1, 1)}" for of in ANSWERS)])
    memory = ["empty, MB", "all ended, MB", "largest, MB", "restarted, MB"]
    times = ["a run of the first 100, CPU ms", "of the last 100, CPU ms", "start, ms", "start, CPU ms"]
    yield table(["ended runs", "runs", *memory, *times], kept)
    yield table(["median ms / CPU ms", "runs", *ANSWERS], answered)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", choices=("cost", "ended"))
    arguments.add_argument("--runs", type=int, nargs="*", default=[100, 1000])
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--base", nargs=2, metavar=("COORD", "INGEST"))
    given = arguments.parse_args()
    sides = {"this": (BIN / "coord", BIN / "ingest")} | ({"base": given.base} if given.base else {})
    measures = {
        "cost": (cost_tables, lambda programs: ingest(programs, "cost")),
        "ended": (ended_tables, lambda programs: [ingest(programs, "ended", "--runs", str(runs))[0] for runs in given.runs]),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    for what, (tables, measure) in measures.items():
        if given.only in (None, what):
            say(f"coordinator, {what}: {given.rounds} rounds")
            found = alternate(given.rounds, {side: lambda programs=programs: measure(programs) for side, programs in sides.items()})
            (OUT / f"coordinator-{what}.json").write_text(json.dumps(found))
            print("\n\n".join(tables(found)), end="\n\n")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench: error: {error}")
