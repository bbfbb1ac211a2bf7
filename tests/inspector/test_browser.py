"""The patch inspector in a real browser: Chromium drives notebook 07 in JupyterLab, and the page of `make inspect`.

Screenshots go to runs/browser/, for people to look at.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from selfie_lite.workbook.walkthrough import NOTEBOOKS

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENSHOTS = NOTEBOOKS.parent / "runs" / "browser"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
pytestmark = pytest.mark.skipif(
    not BROWSER, reason="no browser: install Debian's package chromium (apt-get install chromium), or Google Chrome"
)
expect.set_options(timeout=90_000)  # a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A place with a copy of the notebook, in which servers and kernels write."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "nbs").mkdir()
    shutil.copy(NOTEBOOKS / "07_patch_inspector.ipynb", folder / "nbs")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def serve(folder):
    """Start a server in that place, wait until it answers, and end it, kernels included, with the tests."""
    started = []
    own = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "work")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1"}

    def start(*words):
        command, log = [sys.executable, "-m", *words, "--port=0"], folder / f"{words[0]}.log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                command, cwd=folder, env=os.environ | own, stdout=file, stderr=file, start_new_session=True
            )
        started.append(process)
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            if found := re.search(r"http://localhost:(\d+)/\S*", log.read_text()):
                return found[0]
            time.sleep(0.3)
        raise AssertionError(log.read_text()[-2000:])

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGTERM)  # kernels too
        process.wait(30)


@pytest.fixture(scope="module")
def browser(folder):
    with sync_playwright() as playwright:
        started = playwright.chromium.launch_persistent_context(
            folder / "profile", executable_path=BROWSER, args=QUIET, viewport={"width": 1280, "height": 1000}
        )
        started.set_default_timeout(90_000)
        yield started
        started.close()


@pytest.fixture(scope="module")
def lab(browser, serve):
    """Notebook 07 in JupyterLab, all cells run: the page, and the inspector in it."""
    words = ["--no-browser", "--allow-root", "--ServerApp.root_dir=nbs", "--IdentityProvider.token=secret"]
    words += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    page = browser.new_page()
    page.goto(re.match(r".*:\d+", serve("jupyterlab", *words))[0] + "/lab/tree/07_patch_inspector.ipynb?token=secret")
    expect(page.get_by_text("| Idle")).to_be_visible()  # the kernel is there
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    return found_in(page)


@pytest.fixture(scope="module")
def voila(browser, serve):
    """The page of `selfie-lite inspect`, and the inspector in it."""
    page = browser.new_page()
    page.goto(serve("selfie_lite", "inspect", "--no-browser"))
    return found_in(page)


def found_in(page):
    inspector = page.locator("[class*=inspector-]").first
    expect(inspector.locator("img").first).to_be_visible()
    inspector.scroll_into_view_if_needed()
    return page, inspector


@pytest.fixture(scope="module", params=["lab", "voila"])
def either(request):
    page, inspector = request.getfixturevalue(request.param)
    page.bring_to_front()  # a page behind another is slow
    return page, inspector


@pytest.fixture(autouse=True)
def screenshot(request, browser):
    yield
    browser.pages[-1].screenshot(path=SCREENSHOTS / f"{request.node.name}.png")


SEEN = """async (root) => {
    const data = async (image) => {
        const reader = new FileReader();
        reader.readAsDataURL(await (await fetch(image.src)).blob());
        await new Promise((loaded) => { reader.onload = loaded; });
        return reader.result;
    };
    const shown = (what) => [...root.querySelectorAll(what)].filter((element) => element.offsetParent);
    return [(await Promise.all(shown("img").map(data))).join(), shown("p").map((p) => p.innerText).join()];
}"""  # the pictures' bytes, and the words


def seen(inspector):
    return inspector.evaluate(SEEN)


def settled(inspector):
    """What is seen once nothing moves: a change arrives in several messages."""
    before, after = None, seen(inspector)
    while before != after:
        time.sleep(0.2)
        before, after = after, seen(inspector)
    return after


@contextmanager
def changing(inspector, picture=True):
    """What is done inside changes the words, and the picture, within a minute and a half."""
    before = settled(inspector)
    yield
    until = time.monotonic() + 90
    while time.monotonic() < until:
        after = seen(inspector)
        if after[1] != before[1] and (not picture or after[0] != before[0]):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing changed: {inspector.inner_text()}")


def press(inspector, name):
    inspector.get_by_role("button", name=name, exact=True).click()


def type_into(inspector, label, value):
    inspector.get_by_label(label, exact=True).fill(str(value))
    inspector.get_by_label(label, exact=True).press("Enter")


def choose(inspector, label, value=None, **which):
    inspector.get_by_label(label, exact=True).select_option(value, **which)


def hidden_patches(inspector):
    """What their buttons are called, "12 ?" for instance."""
    return inspector.locator("button", has_text="?").all_inner_texts()


def upload(page, inspector, file):
    with page.expect_file_chooser() as chooser:
        inspector.get_by_role("button", name="your own").click()
    chooser.value.set_files(file)


def test_every_control_changes_the_picture_and_the_words(lab):
    _, inspector = lab
    with changing(inspector):
        press(inspector, "guess")  # a puzzle looks the same when two models solve it
    for label, value in (("number", 3), ("seed", 5)):
        with changing(inspector):
            type_into(inspector, label, value)
    for label, value in (("class", "ship"), ("compare with", "nothing"), ("model", "mask_token"), ("images", "photos")):
        with changing(inspector):
            choose(inspector, label, value)
    for name in ("random image", "puzzle", "matrix", "attention"):
        with changing(inspector):
            press(inspector, name)
    for label in ("block", "head", "location"):
        with changing(inspector):
            choose(inspector, label, index=2)
    with changing(inspector):
        press(inspector, "guess")
    with changing(inspector):
        inspector.locator(".noUi-handle:visible").press("ArrowRight")
    expect(inspector.locator("button", has_text="?")).to_have_count(5)


def test_hidden_patches_are_asked_about_and_shown(lab):
    _, inspector = lab
    hidden = hidden_patches(inspector)
    with changing(inspector):
        press(inspector, hidden[-1])
    expect(inspector.locator("button", has_text="▸")).to_have_text("▸" + hidden[-1])
    press(inspector, "hide or show it")
    with changing(inspector):
        press(inspector, hidden[1])
    expect(inspector.locator("button", has_text="?")).to_have_count(len(hidden) - 1)
    press(inspector, "ask about it")


def test_dragging_a_slider_leaves_no_stale_work(lab):
    page, inspector = lab
    handle = inspector.locator(".noUi-handle:visible").bounding_box()
    track = inspector.locator(".noUi-base:visible").bounding_box()
    height = handle["y"] + handle["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, height)
    page.mouse.down()
    for target in (1.0, 0.0, 1.0):
        page.mouse.move(track["x"] + target * track["width"], height, steps=40)
    counting = inspector.locator("img").first.evaluate_handle("""image => {
        const count = {drawn: 0};
        new MutationObserver(() => count.drawn++).observe(image, {attributeFilter: ["src"]});
        return count;
    }""")
    page.mouse.up()
    expect(inspector.locator(".widget-readout:visible")).to_have_text("15")
    expect(inspector.locator("button", has_text="?")).to_have_count(15)
    page.wait_for_timeout(2000)
    assert counting.evaluate("count => count.drawn") <= 2, "at most the one under way, and the last"


def test_everything_is_reachable_by_keyboard(lab):
    page, inspector = lab
    controls = "select, input:not([type=file]), button, textarea, .noUi-handle"
    wanted = inspector.evaluate(
        """(root, controls) => {
        const all = [...root.querySelectorAll(controls)].filter((element) => element.offsetParent);
        all.forEach((element) => element.addEventListener("focus", () => { element.reached = true; }));
        return all.length;
    }""",
        controls,
    )
    inspector.get_by_label("images", exact=True).blur()
    inspector.get_by_label("images", exact=True).focus()
    for _ in range(2 * wanted):
        page.keyboard.press("Tab")
    left = inspector.evaluate(
        "(root, controls) => [...root.querySelectorAll(controls)].filter((e) => e.offsetParent && !e.reached)"
        ".map((e) => e.outerHTML)",
        controls,
    )
    assert wanted > 30 and left == []
    for name, key in (("matrix", "Enter"), ("guess", "Space"), (hidden_patches(inspector)[-1], "Enter")):
        with changing(inspector):
            inspector.get_by_role("button", name=name, exact=True).press(key)
    with changing(inspector):  # a list: open, move, choose
        inspector.get_by_label("location", exact=True).focus()
        for key in ("Enter", "ArrowUp", "Enter"):
            page.keyboard.press(key)
            page.wait_for_timeout(200)


def test_a_view_is_taken_away(lab, folder):
    _, inspector = lab
    press(inspector, "save as PNG")
    expect(inspector.get_by_role("alert")).to_contain_text("Saved: runs/inspector/")
    (file,) = (folder / "nbs" / "runs" / "inspector").glob("*.png")
    assert Image.open(file).width > 300
    lines = inspector.get_by_label("rebuild", exact=True).input_value()
    assert lines.startswith("from selfie_lite.inspector import PatchInspector\nPatchInspector('mask_token', 'photos', ")


def test_upload_and_its_errors(either, tmp_path):
    page, inspector = either
    before = settled(inspector)
    (tmp_path / "broken.png").write_text("no image")
    Image.new("RGB", (20, 31)).save(tmp_path / "small.png")
    for file, said in (("broken.png", "cannot be read"), ("small.png", "20×31 pixels, but the model takes 32×32")):
        upload(page, inspector, tmp_path / file)
        expect(inspector.get_by_role("alert")).to_contain_text(said)
    assert seen(inspector) == before
    Image.linear_gradient("L").rotate(90).save(tmp_path / "mine.png")
    with changing(inspector):
        upload(page, inspector, tmp_path / "mine.png")
    expect(inspector.get_by_label("images", exact=True)).to_have_value("mine.png")
    expect(inspector.get_by_role("alert")).to_have_count(0)
    with changing(inspector):
        choose(inspector, "images", "sample")


def test_play_a_round(either):
    _, inspector = either
    with changing(inspector):
        type_into(inspector, "seed", 3)
    press(inspector, "play")
    expect(inspector.get_by_role("button", name="check", exact=True)).to_be_visible()
    left = len(hidden_patches(inspector))
    for place in range(left):
        with changing(inspector, picture=False):
            inspector.locator(f"button.candidate-{place}").click()
    expect(inspector.locator("button", has_text="?")).to_have_count(0)
    with changing(inspector, picture=False):
        press(inspector, "check")
    said = inspector.locator("p:visible").inner_text()
    assert "You placed" in said and f"of {left} right" in said and "So far" in said
    expect(inspector.locator("button", has_text=re.compile("[✓✗]"))).to_have_count(left)
    with changing(inspector, picture=False):
        press(inspector, "next puzzle")
    expect(inspector.locator("button", has_text="?")).to_have_count(left)
    with changing(inspector):
        press(inspector, "guess")


def test_the_page_of_inspect(voila):
    _, inspector = voila
    for view in ("matrix", "attention", "puzzle", "guess"):
        with changing(inspector):
            press(inspector, view)
    with changing(inspector):
        press(inspector, hidden_patches(inspector)[-1])
    with changing(inspector):
        inspector.locator(".noUi-handle:visible").press("ArrowRight")
    with changing(inspector):
        choose(inspector, "compare with", "mask_token")
    assert inspector.locator("img:visible").count() == 2
    choose(inspector, "compare with", "nothing")
    expect(inspector.locator("img:visible")).to_have_count(1)
