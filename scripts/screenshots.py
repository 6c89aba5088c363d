#!/usr/bin/env python3
"""Takes the screenshots of the web page for the README, and writes them into `coordinator/web/screenshots`.

Needs Chromium, Playwright and Pillow, which `scripts/setup.sh --test` installs.

    . scripts/env.sh
    "$test_tools/bin/python3" scripts/screenshots.py                           # starts a cluster and trains: five minutes
    "$test_tools/bin/python3" scripts/screenshots.py http://HOST:PORT RUN ..   # existing runs; the first one is shown alone
"""

import contextlib
import dataclasses
import io
import re
import shutil
import sys
import time

from local_cluster import ROOT, Cluster
from PIL import Image
from playwright.sync_api import sync_playwright

JOB = ROOT / "configs" / "jobs" / "gpt-kjv.toml"
FOLDER = ROOT / "coordinator" / "web" / "screenshots"
# Changes of the job for each run that ends, and the run's tags. All runs also have `OFTEN`.
OFTEN = "report.histograms_every=5"
ENDING = [
    (["optimizer.lr=4e-3"], ["baseline"]),
    (["optimizer.lr=1e-3"], ["sweep"]),
    (["optimizer.lr=1.6e-2"], ["sweep"]),
    (["optimizer.lr=1e30", "optimizer.clip_norm=1e30"], ["sweep"]),
]
# Changes and tags of a run that trains while the screenshots are taken.
GOING_ON = (["steps=3000"], ["long"])
TRAINING_SECONDS = 600
PATIENCE_MS = 30_000
MOST_BYTES = 150_000
# The text of a screenshot is readable in the README's column. Each CSS pixel has two pixels in the image.
WIDE = {"width": 1000, "height": 640}
TALL = {"width": 1000, "height": 668}
PHONE = {"width": 390, "height": 780}
RATIO = 2

# A JavaScript expression: whether all visible charts are drawn.
READY = """document.getElementById('live').textContent === 'live' && [...document.querySelectorAll('.chart')]
  .filter(chart => { const box = chart.getBoundingClientRect(); return box.top < innerHeight && box.bottom > 0; })
  .every(chart => chart.querySelector('.empty')?.hidden !== false)"""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One screenshot: the URL's hash (`{run}` and `{runs}` are replaced), a selector that must exist, and display settings."""

    name: str
    hash: str
    needs: str
    dark: bool = False
    size: dict = dataclasses.field(default_factory=lambda: WIDE)
    cursor: str | None = None  # selector of a chart under the mouse pointer


PICTURES = [
    Picture("runs", "#/runs", "tr[data-run]", size={"width": 1060, "height": 240}),
    Picture("charts", "#/run/{run}/charts?smooth=0.6", ".chart", cursor=".chart[data-name=loss]"),
    Picture("histograms", "#/run/{run}/histograms?kind=activation", ".chart", dark=True),
    Picture("compare", "#/compare?runs={runs}", ".chart[data-name=loss]", size=TALL, cursor=".chart[data-name=loss]"),
    Picture("phone", "#/run/{run}", ".chart[data-name=loss]", dark=True, size=PHONE),
]


def until(page, holds):
    """Waits until an expression is true. Playwright's own wait uses `eval`, which the page's security policy forbids."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(holds):
        if time.monotonic() > end:
            sys.exit(f"screenshots: timed out after {PATIENCE_MS / 1000:.0f} s, waiting for {holds}")
        time.sleep(0.05)


def reduced(png):
    """The image with as many colours as fit into `MOST_BYTES`; the web page has few colours."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32):
        out = io.BytesIO()
        image.quantize(colours, kmeans=2, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= MOST_BYTES:
            return out.getvalue()
    sys.exit(f"screenshots: the image has {out.tell()} bytes, but at most {MOST_BYTES} are allowed")


def take(browser, base, runs, picture):
    context = browser.new_context(
        viewport=picture.size,
        device_scale_factor=RATIO,
        color_scheme="dark" if picture.dark else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{base}/{picture.hash.format(run=runs[0], runs=','.join(runs))}")
    page.wait_for_selector(picture.needs)
    until(page, READY)
    if picture.cursor:
        box = page.locator(f"{picture.cursor} canvas.plot").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    # Two frames, because the first one draws the data that has arrived.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    png = reduced(page.screenshot())
    (FOLDER / f"{picture.name}.png").write_bytes(png)
    print(f"{picture.name}.png: {len(png)} bytes")
    context.close()


def submitted(cluster, changes, tags):
    """Submits a run of the job with these changes. Returns a function that returns the run's present row of `coord ps`."""
    options = [word for change in [*changes, OFTEN] for word in ("--set", change)]
    cluster.show("submit", JOB, "--allow-dirty", *options)
    run = cluster.newest_run()["run"]
    cluster.show("tag", run, *tags)
    return lambda: next(row for row in cluster.ask("ps") if row["run"] == run)


def wait_until(holds):
    end = time.monotonic() + TRAINING_SECONDS
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"screenshots: timed out after {TRAINING_SECONDS} s, waiting for a run")
        time.sleep(1)


@contextlib.contextmanager
def own_runs():
    """Starts a cluster, trains the runs of `ENDING` and starts that of `GOING_ON`. Yields the page's address and the finished runs."""
    with Cluster(ROOT / "target" / "screenshots", ["node-a", "node-b"], devices="auto") as cluster:
        ending = [submitted(cluster, *each) for each in ENDING]
        for row in ending:
            wait_until(lambda row=row: row()["status"] in ("finished", "failed"))
        going = submitted(cluster, *GOING_ON)
        wait_until(lambda: going()["step"] >= 50)
        address = re.search(r"page at (http://[^/\s]+)", (cluster.directory / "coord.log").read_text())[1]
        yield address, [row()["run"] for row in ending if row()["status"] == "finished"]


def main():
    FOLDER.mkdir(exist_ok=True)
    given = contextlib.nullcontext((sys.argv[1].rstrip("/"), sys.argv[2:])) if len(sys.argv) > 2 else own_runs()
    with given as (base, runs), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for picture in PICTURES:
            take(browser, base, runs, picture)
        browser.close()


if __name__ == "__main__":
    main()
