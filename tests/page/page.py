#!/usr/bin/env python3
"""Drives the page in a real Chromium, as a person would: `page.py http://HOST:PORT HEALTHY FAILED LIVE`.

Three runs: one that finished, one that ended because of what is not a number, one that goes on. Anything that is not as it
should be ends it with words; at the end it prints how long things took, as JSON.
"""

import json
import sys
import time
from urllib.parse import urlparse

from chromium import DRAWN, LATENCY, browser, check, until, view

BASE, HEALTHY, FAILED, LIVE = sys.argv[1:]

# What the charts of the page hold, each scrolled to: `{name: {part: [steps, values]}}`.
CHARTED = """async () => {
  const held = {};
  for (const chart of document.querySelectorAll('.chart')) {
    const { panel } = chart;
    if (!(panel?.lines instanceof Map)) continue;
    chart.scrollIntoView();
    for (let waited = 0; panel.lines.size === 0 && waited < 5000; waited += 20) await new Promise(done => setTimeout(done, 20));
    held[panel.name] = Object.fromEntries([...panel.lines].map(([key, { steps, values }]) => [key.split(' ')[2], [steps, values]]));
  }
  return held;
}"""

def inked(page, selector):
    """Whether anything is drawn on a canvas."""
    return page.evaluate(
        """selector => { const canvas = document.querySelector(selector);
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return data.some((value, at) => at % 4 === 3 && value > 0); }""",
        selector,
    )


def draws_every_series(page):
    """Each series that the API has is in a chart, with the same numbers."""
    series = page.request.get(f"{BASE}/api/runs/{HEALTHY}/points?pixels=20000").json()["series"]
    groups = {own["name"].split("/")[0] if "/" in own["name"] else "main" for own in series}
    page.goto(f"{BASE}/#/run/{HEALTHY}/charts?open={','.join(groups)}")
    until(page, DRAWN % HEALTHY)
    charted = page.evaluate(CHARTED)
    check(f"there are many series: {len(series)}", len(series) > 150)
    for own in series:
        part = "" if own["part"] is None else str(own["part"])
        held = charted.get(own["name"], {}).get(part)
        check(f"`{own['name']}` {part} is charted as it is: {held}", held == [own["steps"], own["values"]])


def shows_evidence_of_distributions(page):
    """An alarm about a layer's distribution has a plot of it: there are no points of that name."""
    until(page, "document.querySelector('.alarm .chart')?.panel?.chart.drawn?.lines[0]?.steps.length > 0")
    check("the evidence is drawn", inked(page, ".alarm .chart canvas.plot"))
    evidence = page.evaluate("document.querySelector('.alarm .chart').panel.chart.lines[0].values")
    check(f"the evidence counts what is not finite: {evidence}", evidence[-1] > 0)


def follows_what_others_write(page):
    """Tags and a note that come from elsewhere are there without a reload; a note that is being written stays."""
    page.goto(f"{BASE}/#/run/{HEALTHY}")
    page.wait_for_selector("textarea")
    until(page, "document.getElementById('live').textContent === 'live'")
    write = lambda what, value: page.request.put(f"{BASE}/api/runs/{HEALTHY}/{what}", data=json.dumps(value))
    write("tags", ["from-elsewhere"])
    until(page, "document.querySelector('.tags .tag')?.textContent.includes('from-elsewhere')")
    write("note", "seen elsewhere")
    until(page, "document.querySelector('textarea').value === 'seen elsewhere'")
    page.fill("textarea", "mine")
    write("note", "theirs")
    until(page, "document.querySelector('textarea + span').textContent.includes('theirs')")
    check("what is being written stays", page.input_value("textarea") == "mine")


def says_that_numbers_are_not_kept(context):
    """A coordinator whose numbers have stopped says so above every page, with the reason; another one does not."""
    page = view(context)
    page.goto(f"{BASE}/#/runs")
    until(page, "document.getElementById('live').textContent === 'live'")
    check("numbers are kept", page.is_hidden("#unkept"))
    about = page.request.get(f"{BASE}/api/coordinator").json()
    page.route("**/api/coordinator", lambda route: route.fulfill(json={**about, "numbers_not_kept": "no space left"}))
    page.reload()
    page.wait_for_selector("#unkept", state="visible")
    check("the reason is there", "no space left" in page.get_attribute("#unkept", "title"))
    page.click("#unkept")
    page.wait_for_selector("dd:text-is('no space left')")
    context.close()


def is_live_in(context, tabs):
    """All of so many tabs show steps of the live run as they come; a browser opens six connections, and a stream keeps one."""
    step = f"document.querySelector('tr[data-run=\"{LIVE}\"] .of-progress')?.textContent"
    pages = [view(context) for _ in range(tabs)]
    for page in pages:
        page.goto(f"{BASE}/#/runs")
    for page in pages:
        until(page, f"document.getElementById('live').textContent === 'live' && {step} !== undefined")
    before = [page.evaluate(step) for page in pages]
    for page, seen in zip(pages, before):
        until(page, f"{step} !== {json.dumps(seen)}")
    context.close()


def main():
    with browser() as chromium:
        page = view(chromium.new_context(viewport={"width": 1360, "height": 860}))
        wrong, elsewhere = [], []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: elsewhere.append(request.url) if urlparse(request.url).netloc not in (urlparse(BASE).netloc, "") else None)

        begin = time.monotonic()
        page.goto(f"{BASE}/#/runs")
        page.wait_for_selector(f"tr[data-run='{HEALTHY}']")
        first_view = time.monotonic() - begin
        row = page.inner_text(f"tr[data-run='{HEALTHY}']")
        check(f"the row of the run says: {row}", "finished" in row and "digits" in row)
        page.keyboard.press("/")
        page.keyboard.type("status:failed")
        page.wait_for_selector(f"tr[data-run='{HEALTHY}']", state="detached")
        check("the filter keeps the failed run", page.locator(f"tr[data-run='{FAILED}']").count() == 1)
        # The address follows a moment later; until then the page without a filter has the same one.
        until(page, "location.hash.includes('failed')")
        # By a parameter of the job, for which all jobs are read at once.
        page.goto(f"{BASE}/#/runs")
        page.wait_for_selector(f"tr[data-run='{HEALTHY}']")
        page.keyboard.press("/")
        page.keyboard.type("optimizer.lr>1")
        page.wait_for_selector(f"tr[data-run='{HEALTHY}']", state="detached")
        page.wait_for_selector(f"tr[data-run='{FAILED}']")

        page.goto(f"{BASE}/#/run/{HEALTHY}/charts")
        page.wait_for_selector(".chart[data-name=loss] canvas.plot")
        until(page, DRAWN % HEALTHY)
        check("the curve of the loss is drawn", inked(page, ".chart[data-name=loss] canvas.plot"))
        drawn = page.evaluate("document.querySelector('.chart[data-name=loss]').panel.chart.drawn.lines[0].steps.length")
        check(f"all 90 steps are drawn, not {drawn}", drawn == 90)
        names = page.evaluate("[...document.querySelectorAll('.chart')].map(chart => chart.dataset.name)")
        check(f"these are charted: {names}", {"loss", "grad_norm", "eval/loss"} <= set(names))

        draws_every_series(page)
        page.goto(f"{BASE}/#/run/{HEALTHY}/model")
        page.wait_for_selector(".importance .feature")
        first = page.inner_text(".importance .feature code")
        check(f"the feature that counts most is a pixel in the middle, not {first}", first[0] == "p" and first not in ("p00", "p32", "p39"))

        page.goto(f"{BASE}/#/run/{FAILED}")
        page.wait_for_selector(".alarm")
        alarm = page.inner_text(".alarm")
        check(f"the alarm names the place: {alarm}", ".linear" in alarm)
        check("the reason is there", "not" in page.inner_text("body") and "NaN" in page.inner_text("body"))
        shows_evidence_of_distributions(page)
        follows_what_others_write(page)

        page.goto(f"{BASE}/#/run/{LIVE}/charts")
        until(page, DRAWN % LIVE)
        latencies = page.evaluate(LATENCY, LIVE)

        page.goto(f"{BASE}/#/compare?runs={HEALTHY},{FAILED}")
        page.wait_for_selector("table")
        page.goto(f"{BASE}/#/cluster")
        page.wait_for_selector("text=node-0")
        says_that_numbers_are_not_kept(chromium.new_context())
        is_live_in(chromium.new_context(), tabs=8)
        alone = chromium.new_context()
        alone.add_init_script("delete globalThis.SharedWorker")
        is_live_in(alone, tabs=1)
        check(f"the browser reports: {wrong}", not wrong)
        check(f"requests went elsewhere: {elsewhere}", not elsewhere)
        middle = latencies[len(latencies) // 2]
        check(f"a new point is on the screen after {middle:.0f} ms", middle < 500)
        print(json.dumps({"first_view_s": round(first_view, 3), "point_ms": [round(ms) for ms in latencies]}))


if __name__ == "__main__":
    main()
