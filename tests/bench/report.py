"""Common parts of the benchmarks: measures that take turns, medians and spreads, and tables."""

import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "target" / "bench"
BIN = ROOT / "target" / "release"


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def spread(over, under):
    """The ratio of two measures, taken in each round: its median, smallest and largest value."""
    ratios = sorted(a / b for a, b in zip(over, under))
    return f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"


def alternate(rounds, measures):
    """Calls each measure once a round, in reverse order in every second round; returns the results by name."""
    found = {name: [] for name in measures}
    for turn in range(rounds):
        for name in sorted(measures, reverse=turn % 2 == 1):
            found[name].append(measures[name]())
    return found


def medians(found):
    return {name: statistics.median(values) for name, values in found.items()}


def table(head, rows, texts=1):
    """A Markdown table; the first `texts` columns are left-aligned, the others right-aligned."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, rule, *rows))
