#!/usr/bin/env python3
"""Takes the pictures of the page that README shows, into `coordinator/web/screenshots`.

Needs Chromium, Playwright and Pillow: `scripts/setup.sh --test` brings them.

    . scripts/env.sh
    "$test_tools/bin/python3" scripts/screenshots.py                           # starts and trains all by itself: five minutes
    "$test_tools/bin/python3" scripts/screenshots.py http://HOST:PORT RUN ..   # of runs that are there; the first is the one shown
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
# What the runs have otherwise than the job, and their tags; all have histograms more often.
OFTEN = "report.histograms_every=5"
ENDING = [
    (["optimizer.lr=4e-3"], ["baseline"]),
    (["optimizer.lr=1e-3"], ["sweep"]),
    (["optimizer.lr=1.6e-2"], ["sweep"]),
    (["optimizer.lr=1e30", "optimizer.clip_norm=1e30"], ["sweep"]),
]
# Trains while the pictures are taken.
GOING_ON = (["steps=3000"], ["long"])
TRAINING_SECONDS = 600
PATIENCE_MS = 30_000
MOST_BYTES = 150_000
# A picture is wide enough to be read in a README's column, and has two pixels for each of the page.
WIDE = {"width": 1000, "height": 640}
TALL = {"width": 1000, "height": 668}
PHONE = {"width": 390, "height": 780}
RATIO = 2

# Whether all that the window shows is drawn.
READY = """document.getElementById('live').textContent === 'live' && [...document.querySelectorAll('.chart')]
  .filter(chart => { const box = chart.getBoundingClientRect(); return box.top < innerHeight && box.bottom > 0; })
  .every(chart => chart.querySelector('.empty')?.hidden !== false)"""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture: the page's hash (`{run}` and `{runs}` are filled in), what must be there, and how it is looked at."""

    name: str
    hash: str
    needs: str
    dark: bool = False
    size: dict = dataclasses.field(default_factory=lambda: WIDE)
    cursor: str | None = None  # a chart in which the pointer lies


PICTURES = [
    Picture("runs", "#/runs", "tr[data-run]", size={"width": 1060, "height": 240}),
    Picture("charts", "#/run/{run}/charts?smooth=0.6", ".chart", cursor=".chart[data-name=loss]"),
    Picture("histograms", "#/run/{run}/histograms?kind=activation", ".chart", dark=True),
    Picture("compare", "#/compare?runs={runs}", ".chart[data-name=loss]", size=TALL, cursor=".chart[data-name=loss]"),
    Picture("phone", "#/run/{run}", ".chart[data-name=loss]", dark=True, size=PHONE),
]


def until(page, holds):
    """Waits for an expression. Playwright's own way of waiting is what the page's policy forbids: `eval`."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(holds):
        if time.monotonic() > end:
            sys.exit(f"screenshots: waited in vain for {holds}")
        time.sleep(0.05)


def reduced(png):
    """The picture with as many colours as fit into `MOST_BYTES`: a page has few."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32):
        out = io.BytesIO()
        image.quantize(colours, kmeans=2, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= MOST_BYTES:
            return out.getvalue()
    sys.exit(f"screenshots: {out.tell()} bytes are too many")


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
    # Two frames: the first draws what has come.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    png = reduced(page.screenshot())
    (FOLDER / f"{picture.name}.png").write_bytes(png)
    print(f"{picture.name}.png: {len(png)} bytes")
    context.close()


def submitted(cluster, changes, tags):
    """A new run of the job with these changes: a question that answers with its row."""
    options = [word for change in [*changes, OFTEN] for word in ("--set", change)]
    cluster.show("submit", JOB, "--allow-dirty", *options)
    run = cluster.newest_run()["run"]
    cluster.show("tag", run, *tags)
    return lambda: next(row for row in cluster.ask("ps") if row["run"] == run)


def wait_until(holds):
    end = time.monotonic() + TRAINING_SECONDS
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"screenshots: a run takes more than {TRAINING_SECONDS} s")
        time.sleep(1)


@contextlib.contextmanager
def own_runs():
    """A coordinator whose workers have trained `ENDING` and train `GOING_ON`: the page's address and the finished runs."""
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
