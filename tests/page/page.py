#!/usr/bin/env python3
"""Operates the page in a real Chromium, as a person would: `page.py http://HOST:PORT HEALTHY FAILED LIVE`.

HEALTHY is a finished run, FAILED a run that failed because of a NaN, LIVE a run that is still training. The first check that fails ends
the program with a message. At the end it prints measured times as JSON.
"""

import json
import sys
import time
from urllib.parse import urlparse

from chromium import DRAWN, LATENCY, browser, check, until, view

BASE, HEALTHY, FAILED, LIVE = sys.argv[1:]

# Scrolls to each chart of the page and returns its data: `{name: {part: [steps, values]}}`.
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
    """Whether a canvas has at least one pixel that is not transparent."""
    return page.evaluate(
        """selector => { const canvas = document.querySelector(selector);
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return data.some((value, at) => at % 4 === 3 && value > 0); }""",
        selector,
    )


def draws_every_series(page):
    """Checks that each series of the API is in a chart, with the same numbers."""
    series = page.request.get(f"{BASE}/api/runs/{HEALTHY}/points?pixels=20000").json()["series"]
    groups = {own["name"].split("/")[0] if "/" in own["name"] else "main" for own in series}
    page.goto(f"{BASE}/#/run/{HEALTHY}/charts?open={','.join(groups)}")
    until(page, DRAWN % HEALTHY)
    charted = page.evaluate(CHARTED)
    check(f"expected more than 150 series, found {len(series)}", len(series) > 150)
    for own in series:
        part = "" if own["part"] is None else str(own["part"])
        held = charted.get(own["name"], {}).get(part)
        check(f"the chart of `{own['name']}` {part} differs from the API: {held}", held == [own["steps"], own["values"]])


def shows_evidence_of_distributions(page):
    """Checks that an alarm about a layer's distribution has a plot of it, although no series has that name."""
    until(page, "document.querySelector('.alarm .chart')?.panel?.chart.drawn?.lines[0]?.steps.length > 0")
    check("the evidence is not drawn", inked(page, ".alarm .chart canvas.plot"))
    evidence = page.evaluate("document.querySelector('.alarm .chart').panel.chart.lines[0].values")
    check(f"the evidence counts no value that is not finite: {evidence}", evidence[-1] > 0)


def follows_what_others_write(page):
    """Checks that tags and a note from another client appear without a reload, and that a note being edited stays."""
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
    check("another client's note replaced the text that was being edited", page.input_value("textarea") == "mine")


def says_that_numbers_are_not_kept(context):
    """Checks that the page shows a warning with the reason if the coordinator stores no numbers any more, and otherwise none."""
    page = view(context)
    page.goto(f"{BASE}/#/runs")
    until(page, "document.getElementById('live').textContent === 'live'")
    check("the page warns although numbers are stored", page.is_hidden("#unkept"))
    about = page.request.get(f"{BASE}/api/coordinator").json()
    page.route("**/api/coordinator", lambda route: route.fulfill(json={**about, "numbers_not_kept": "no space left"}))
    page.reload()
    page.wait_for_selector("#unkept", state="visible")
    check("the warning lacks the reason", "no space left" in page.get_attribute("#unkept", "title"))
    page.click("#unkept")
    page.wait_for_selector("dd:text-is('no space left')")
    context.close()


def is_live_in(context, tabs):
    """Checks that `tabs` tabs show new steps of the live run. A browser opens at most six connections, and a stream occupies one."""
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
        check(f"the row of the run lacks status or name: {row}", "finished" in row and "digits" in row)
        page.keyboard.press("/")
        page.keyboard.type("status:failed")
        page.wait_for_selector(f"tr[data-run='{HEALTHY}']", state="detached")
        check("the filter hides the failed run", page.locator(f"tr[data-run='{FAILED}']").count() == 1)
        # The address changes a moment later; until then it equals that of the page without a filter.
        until(page, "location.hash.includes('failed')")
        # Filter by a parameter of the job, for which the page reads all jobs at once.
        page.goto(f"{BASE}/#/runs")
        page.wait_for_selector(f"tr[data-run='{HEALTHY}']")
        page.keyboard.press("/")
        page.keyboard.type("optimizer.lr>1")
        page.wait_for_selector(f"tr[data-run='{HEALTHY}']", state="detached")
        page.wait_for_selector(f"tr[data-run='{FAILED}']")

        page.goto(f"{BASE}/#/run/{HEALTHY}/charts")
        page.wait_for_selector(".chart[data-name=loss] canvas.plot")
        until(page, DRAWN % HEALTHY)
        check("the curve of the loss is not drawn", inked(page, ".chart[data-name=loss] canvas.plot"))
        drawn = page.evaluate("document.querySelector('.chart[data-name=loss]').panel.chart.drawn.lines[0].steps.length")
        check(f"expected 90 drawn steps, found {drawn}", drawn == 90)
        names = page.evaluate("[...document.querySelectorAll('.chart')].map(chart => chart.dataset.name)")
        check(f"a chart is missing; found {names}", {"loss", "grad_norm", "eval/loss"} <= set(names))

        draws_every_series(page)
        page.goto(f"{BASE}/#/run/{HEALTHY}/model")
        page.wait_for_selector(".importance .feature")
        first = page.inner_text(".importance .feature code")
        check(f"expected a middle pixel as top feature, found {first}", first[0] == "p" and first not in ("p00", "p32", "p39"))

        page.goto(f"{BASE}/#/run/{FAILED}")
        page.wait_for_selector(".alarm")
        alarm = page.inner_text(".alarm")
        check(f"the alarm does not name the operator: {alarm}", ".linear" in alarm)
        check("the page of the failed run lacks the reason", "not" in page.inner_text("body") and "NaN" in page.inner_text("body"))
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
        check(f"the browser reports errors: {wrong}", not wrong)
        check(f"requests went to other servers: {elsewhere}", not elsewhere)
        middle = latencies[len(latencies) // 2]
        check(f"a new point needed {middle:.0f} ms to the screen; the limit is 500 ms", middle < 500)
        print(json.dumps({"first_view_s": round(first_view, 3), "point_ms": [round(ms) for ms in latencies]}))


if __name__ == "__main__":
    main()
