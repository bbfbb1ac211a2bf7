"""How soon the patch inspector answers: from a key press to the changed picture, in a browser; and in the kernel."""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from selfie_lite.benchmarks.timing import spread
from selfie_lite.errors import SelfieLiteError
from selfie_lite.inspector import messages
from selfie_lite.inspector.panel import PatchInspector
from selfie_lite.inspector.state import InspectorState
from selfie_lite.machine import environment
from selfie_lite.workbook.pages import board_html, shell

KEYS = {  # what is in focus, and what is pressed there
    "play: put a patch into a hole": (".model-0 .cell:enabled", "a"),
    "play: the next hole": (".model-0 .cell:enabled", "ArrowRight"),
    "one hole: the next hole": (".model-0 .cell:enabled", "ArrowRight"),
    "one hole: the next patch": (".model-0 .candidate", "ArrowRight"),
    "matrix: the next hole": (".model-0 .cell:enabled", "ArrowRight"),
    "attention: the next hole": (".model-0 .cell:enabled", "ArrowRight"),
    "next puzzle, computed before": (".actions .next", "Enter"),
}
# From the time that the browser gives the key press to the first moment after the frame that shows what it changed.
CLOCK = """() => { window.times = []; addEventListener("keydown", (event) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => times.push(performance.now() - event.timeStamp);
    channel.port2.postMessage(0);
}), true); }"""


def time_inspector(rounds: int) -> dict[str, Any]:
    """Milliseconds from a key press to the changed picture, of both bundled models at once on a page in Chromium, each
    key `rounds` times, with the page's own CPU time; milliseconds in the kernel for a new puzzle; bytes sent for one.

    Raises:
        SelfieLiteError: without Playwright, or without a browser.
    """
    state = InspectorState(compare="mask_token")
    page = shell("Patches", board_html(messages.still(state, 5), 0), {}, boards=True)
    told = {"image and holes": messages.puzzle(state)}
    told |= {name: messages.beliefs(name, found) for name, found in state.look()}
    inspector, seconds = PatchInspector(compare="mask_token"), []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        inspector.set(seed=inspector.state.seed + 1)
        seconds.append(time.perf_counter() - start)
    inspector.close()
    rows = [
        {"change": name, "milliseconds": spread(values), "cpu_milliseconds": float(f"{cpu:.3g}")}
        for name, (values, cpu) in _press(page, rounds).items()
    ]
    rows.append({"change": "next puzzle, in the kernel", "milliseconds": spread(1000 * s for s in seconds[1:])})
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # what else this machine was doing
    sizes = {name: len(json.dumps(message)) for name, message in told.items()}
    return {"environment": environment(), "load": load, "rounds": rounds, "changes": rows, "bytes": sizes}


def _press(page: str, rounds: int) -> dict[str, tuple[list[float], float]]:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser = None
    if not browser:
        raise SelfieLiteError("this needs Playwright and Chromium: pip install playwright; apt-get install chromium.")
    found: dict[str, tuple[list[float], float]] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "board.html"
        file.write_text(page, encoding="utf-8")
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        tab = chromium.new_page(viewport={"width": 1100, "height": 900})
        tab.goto(file.as_uri())
        tab.evaluate(CLOCK)
        inside = tab.context.new_cdp_session(tab)
        inside.send("Performance.enable", {"timeDomain": "threadTicks"})  # CPU time of the page's own thread
        for name, (focus, key) in KEYS.items():
            if name == "one hole: the next hole":
                tab.get_by_role("button", name="see what the models believe").click()
            elif name.split(":")[0] in ("matrix", "attention"):
                tab.get_by_role("button", name=name.split(":")[0], exact=True).click()
            tab.locator(focus).first.focus()
            tab.evaluate("times.length = 0")
            cpu = -_busy(inside)
            for pressed in range(1, rounds + 2):  # the first is not counted
                tab.keyboard.press(key)
                tab.wait_for_function("count => times.length >= count", arg=pressed)
            cpu += _busy(inside)
            found[name] = tab.evaluate("times")[1:], 1000 * cpu / (rounds + 1)
        chromium.close()
    return found


def _busy(inside: Any) -> float:
    """Seconds of CPU that the page's thread has used so far."""
    metrics = {metric["name"]: metric["value"] for metric in inside.send("Performance.getMetrics")["metrics"]}
    return metrics["TaskDuration"]
