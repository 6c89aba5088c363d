#!/usr/bin/env python3
"""Speed of the page with many runs, in a real Chromium; part of `make bench`.

    python3 tests/bench/page.py [--rounds 9] [--runs 500] [--series 200] [--points 1000] [--long 100000]

`tests/bench/ingest crowd` fills a coordinator with runs. All have ended but one, which reports a step every 100 ms; the first
run's series are long. Each round uses a browser with an empty cache. The aims: the first view of all runs in less than a second,
and a new point on the screen within half a second.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from report import BIN, OUT, ROOT, say, table

sys.path.insert(0, str(ROOT / "tests" / "page"))
from chromium import DRAWN, LATENCY, browser, until, view  # noqa: E402

# Number of lines with points in the chart of the loss.
LINES = """[...document.querySelectorAll('.chart[data-name=loss]')]
  .map(chart => chart.panel?.chart.drawn?.lines.filter(line => line?.steps.length > 0).length ?? 0)[0]"""

# Sorted milliseconds between frames while a pointer moves over the chart of the loss.
FRAMES = """() => new Promise(done => {
  const plot = document.querySelector('.chart[data-name=loss] canvas.plot'), box = plot.getBoundingClientRect(), at = [];
  const move = now => {
    at.push(now);
    const clientX = box.left + 60 + at.length * 2 % (box.width - 100), clientY = box.top + 60;
    plot.dispatchEvent(new PointerEvent('pointermove', { bubbles: true, clientX, clientY }));
    plot.dispatchEvent(new MouseEvent('mousemove', { bubbles: true, clientX, clientY }));
    if (at.length < 120) requestAnimationFrame(move);
    else done(at.slice(1).map((now, index) => now - at[index]).sort((a, b) => a - b));
  };
  requestAnimationFrame(move);
})"""


def seconds(page, address, shown):
    """Seconds from opening the address until the JavaScript expression `shown` is true."""
    begin = time.monotonic()
    page.goto(address)
    until(page, shown)
    return time.monotonic() - begin


def look(chromium, told):
    """One round of measurements in a new browser context, in seconds by name."""
    base, runs, long, live = told["page"], told["runs"], told["long"], told["live"]
    context = chromium.new_context(viewport={"width": 1360, "height": 860})
    page = view(context)
    found = {"all runs, first view": seconds(page, f"{base}/#/runs", f"document.querySelector('tr[data-run=\"{live}\"]') !== null")}
    begin = time.monotonic()
    page.fill("input.filter", f"optimizer.lr>{1e-4 * (len(runs) - 20)}")
    until(page, f"document.querySelector('tr[data-run=\"{long}\"]') === null && document.querySelectorAll('tr[data-run]').length > 0")
    found["filtered by a parameter of the job"] = time.monotonic() - begin
    found["the loss of the long run, among its charts"] = seconds(page, f"{base}/#/run/{long}/charts?open=main,grad_norm", DRAWN % long)
    frames = page.evaluate(FRAMES)
    found["a frame under the pointer"] = statistics.median(frames) / 1000
    found["the slowest of 20 frames"] = frames[len(frames) * 95 // 100] / 1000
    chosen = ",".join(runs[:50])
    found["50 runs compared"] = seconds(page, f"{base}/#/compare?runs={chosen}", f"{LINES} >= 50")
    page.goto(f"{base}/#/run/{live}/charts")
    until(page, DRAWN % live)
    latencies = page.evaluate(LATENCY, live)
    found["a new point, from the event to the screen"] = statistics.median(latencies) / 1000
    context.close()
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=9)
    for option, default in (("runs", 500), ("series", 200), ("points", 1000), ("long", 100_000)):
        arguments.add_argument(f"--{option}", type=int, default=default)
    options = vars(arguments.parse_args())
    rounds = options.pop("rounds")
    OUT.mkdir(parents=True, exist_ok=True)
    sizes = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    crowd = [BIN / "ingest", "crowd", BIN / "coord", *sizes]
    with subprocess.Popen(crowd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as filled:
        line = filled.stdout.readline()
        if not line:
            sys.exit("bench: error: `ingest crowd` ended before it had filled the coordinator; its messages are above")
        told = json.loads(line)
        say(f"{len(told['runs'])} runs with {told['points']:,} points; {rounds} rounds")
        with browser() as chromium:
            found = [look(chromium, told) for _ in range(rounds)]
        filled.stdin.close()
    each = {what: sorted(round_[what] * 1000 for round_ in found) for what in found[0]}
    print(table(["the page, ms", "median", "least", "most"], [[what, *(f"{value:,.0f}" for value in (statistics.median(ms), ms[0], ms[-1]))] for what, ms in each.items()]))
    (OUT / "page.json").write_text(json.dumps(each))


if __name__ == "__main__":
    main()
