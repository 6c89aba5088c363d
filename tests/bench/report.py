"""How every benchmark here measures and shows: measures take turns, and their medians and spreads stand in a table."""

import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "target" / "bench"
BIN = ROOT / "target" / "release"


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def spread(over, under):
    """The ratio of two measures round by round: its median, and its least and greatest value."""
    ratios = sorted(a / b for a, b in zip(over, under))
    return f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"


def alternate(rounds, measures):
    """What the measures found, by name: they take turns, and every other round in reverse order."""
    found = {name: [] for name in measures}
    for turn in range(rounds):
        for name in sorted(measures, reverse=turn % 2 == 1):
            found[name].append(measures[name]())
    return found


def medians(found):
    return {name: statistics.median(values) for name, values in found.items()}


def table(head, rows, texts=1):
    """A Markdown table, whose first columns are texts and the others numbers."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, rule, *rows))
