"""A headless Chromium, and functions that wait for its pages. Used by the test and the benchmark of the page."""

import contextlib
import shutil
import sys
import time

from playwright.sync_api import sync_playwright

PATIENCE_MS = 20_000

# Whether the loss of a run is drawn. It checks the run's id, because the previous view stays visible until the next one is ready.
DRAWN = """[...document.querySelectorAll('.chart[data-name=loss]')]
  .some(chart => chart.panel?.runs[0].id === '%s' && chart.panel.chart.drawn?.lines[0]?.steps.length > 0)"""

# Sorted milliseconds from the event that announces new points to the frame in which they are drawn.
LATENCY = """run => new Promise((done, fail) => {
  const seen = new Map(), took = [];
  const source = new EventSource(`/api/events?run=${run}`);
  let told = 0;
  source.addEventListener('points', event => { told += 1; seen.set(JSON.parse(event.data).step, performance.now()); });
  const { panel } = [...document.querySelectorAll('.chart[data-name=loss]')].find(chart => chart.panel.runs[0].id === run);
  const end = performance.now() + 15000;
  const look = () => {
    const steps = panel.chart.drawn?.lines[0]?.steps ?? [];
    const last = steps[steps.length - 1];
    for (const [step, at] of [...seen]) {
      if (step <= last) { took.push(performance.now() - at); seen.delete(step); }
    }
    if (took.length >= 10) { source.close(); done(took.sort((a, b) => a - b)); }
    else if (performance.now() > end) { source.close(); fail(new Error(
      `only ${took.length} new points were drawn: ${told} announced, not drawn ${[...seen.keys()]}, last drawn ${last}`)); }
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})"""


@contextlib.contextmanager
def browser():
    """A browser, which is closed at the end of the context."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


def view(context):
    """A new page of a browser's context, with a time limit for every wait."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page


def check(what, holds):
    if not holds:
        sys.exit(f"page: {what}")


def until(page, holds):
    """Waits until a JavaScript expression is true. Playwright's own wait uses `eval`, which the page's policy forbids."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(holds):
        check(f"not true within {PATIENCE_MS / 1000:.0f} s: {holds}", time.monotonic() < end)
        time.sleep(0.01)
