"""The patch inspector in a real browser: a page from disk without a network, the page of `make inspect`, and notebook
07 in JupyterLab. Screenshots go to runs/browser/, for people to look at."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from selfie_lite.inspector.messages import still
from selfie_lite.inspector.state import InspectorState
from selfie_lite.workbook.pages import board_html, shell, write_html
from selfie_lite.workbook.walkthrough import NOTEBOOKS

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENSHOTS = NOTEBOOKS.parent / "runs" / "browser"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
WCAG = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
}
pytestmark = pytest.mark.skipif(
    not BROWSER, reason="no browser: install Debian's package chromium (apt-get install chromium), or Google Chrome"
)
expect.set_options(timeout=60_000)  # a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A place with a copy of the notebook, in which servers and kernels write; and a page with puzzles."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "nbs").mkdir()
    shutil.copy(NOTEBOOKS / "07_patch_inspector.ipynb", folder / "nbs")
    puzzles = still(InspectorState(compare="mask_token", image_number=7), 3)
    page = shell("Patches", "<h1>What belongs where?</h1>" + board_html(puzzles, 0), {"contents": "index.html"}, True)
    (folder / "board.html").write_text(page, encoding="utf-8")
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
def browser():
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield started
        started.close()


def open_page(browser, address, **options):
    """A page in a context of its own, with the board in it; what goes wrong in it fails the test."""
    context = browser.new_context(**({"viewport": {"width": 1100, "height": 900}} | options))
    context.set_default_timeout(90_000)
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(address, timeout=180_000)
    return page


@pytest.fixture
def disk(browser, folder, request):
    """The page from disk, the network off."""
    page = open_page(browser, (folder / "board.html").as_uri(), offline=True, **getattr(request, "param", {}))
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def inspect(browser, serve):
    """The page of `selfie-lite inspect`."""
    page = open_page(browser, serve("selfie_lite", "inspect", "--no-browser"), color_scheme="dark")
    yield page
    page.context.close()


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def hint(page):
    return page.locator(".hint")


def play(page):
    """Press one candidate after the other, and check."""
    for _ in range(page.locator(".model-0 .candidate:not(.placed)").count()):
        page.locator(".model-0 .candidate:not(.placed)").first.click()
    button(page, "check").click()


def seen(page):
    """All that can be seen of the board: words, marks, bars and light."""
    return page.locator(".selfie-board").evaluate(
        "root => root.innerText + [...root.querySelectorAll('.cell, .bar')].map((e) => e.className + e.style.cssText)"
    )


def require_access(page, name):
    """Nothing for axe to find, nothing beyond the page's width; a screenshot to look at."""
    page.wait_for_timeout(250)  # bars have grown
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
    found = Axe().run(page, options=WCAG).response["violations"]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


LOOKS = {
    "wide": {},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
}


@pytest.mark.parametrize(("disk", "name"), [(look, name) for name, look in LOOKS.items()], indirect=["disk"], ids=LOOKS)
def test_every_view_is_accessible_wide_narrow_and_dark(disk, name):
    require_access(disk, f"{name}_1_play")
    play(disk)
    require_access(disk, f"{name}_2_checked")
    button(disk, "see what the models believe").click()
    require_access(disk, f"{name}_3_one_hole")
    for number, view in enumerate(("whole puzzle", "matrix", "attention"), 4):
        button(disk, view).click()
        require_access(disk, f"{name}_{number}_{view.replace(' ', '_')}")
    disk.locator(".choose summary").click()
    disk.locator(".take summary").click()
    require_access(disk, f"{name}_7_unfolded")


def test_a_round_by_mouse_dragged(disk):
    first = disk.locator(".model-0 .candidate .patch").first
    holes = disk.locator(".model-0 .cell.hole")
    assert "Put them back" in hint(disk).inner_text()
    first.drag_to(holes.nth(2))
    expect(disk.locator(".model-0 .candidate.placed")).to_have_count(1)
    expect(holes).to_have_count(3)
    placed = disk.locator(".model-0 .cell.hidden:not(.hole)")
    placed.drag_to(holes.first)  # from hole to hole
    expect(disk.locator(".model-0 .candidate.placed")).to_have_count(1)
    placed.drag_to(disk.locator("h1"))  # and out again
    expect(holes).to_have_count(4)
    play(disk)
    expect(disk.locator(".model-0 .cell.right, .cell.wrong")).to_have_count(4)
    expect(disk.locator(".result")).to_contain_text("So far, 4 patches in 1 round: you")
    right = disk.locator(".model-0 .cell.right").count()
    assert hint(disk).inner_text().startswith(f"{right} of 4 right" if right < 4 else "All right")
    button(disk, "next puzzle").click()
    expect(holes).to_have_count(4)
    play(disk)
    expect(disk.locator(".result")).to_contain_text("8 patches in 2 rounds")


def test_a_round_by_keyboard(disk):
    disk.keyboard.press("Tab")  # the link above
    disk.keyboard.press("Tab")
    assert disk.evaluate("document.activeElement.className").startswith("cell")
    for key in ("c", "ArrowRight", "A", "ArrowRight", "b"):
        disk.keyboard.press(key)
    expect(disk.locator(".model-0 .candidate.placed")).to_have_count(3)
    disk.keyboard.press("Delete")
    assert button(disk, "check").is_disabled()
    while disk.locator(".model-0 .candidate:not(.placed)").count():
        disk.locator(".model-0 .candidate:not(.placed)").first.press("Enter")
    button(disk, "check").press("Enter")
    expect(disk.locator(".result")).to_be_visible()
    button(disk, "see what the models believe").press("Space")
    before = seen(disk)
    disk.locator(".model-0 .cell:enabled").first.press("ArrowRight")
    assert seen(disk) != before
    disk.locator(".model-0 .candidate").nth(1).press("d")
    expect(disk.locator(".model-0 .cell.most")).to_have_count(1)
    every = disk.locator(".selfie-board :is(button:enabled, select, input, summary):visible")
    reached = set()
    disk.locator(".model-0 .cell:enabled").first.focus()
    for _ in range(every.count()):
        reached.add(disk.evaluate("document.activeElement.outerHTML"))
        disk.keyboard.press("Tab")
    assert len(reached) >= every.count() - 6, "tabs stand before the board"


def test_pointing_shows_rows_and_columns_of_both_models_at_once(disk):
    button(disk, "see what the models believe").click()
    holes, words = disk.locator(".model-0 .cell.hole"), disk.locator(".words")
    for k in range(holes.count()):
        holes.nth(k).hover()
        location = holes.nth(k).get_attribute("data-at")
        for number in range(2):
            expect(words.nth(number)).to_contain_text(f"For location {location} the model takes")
            expect(disk.locator(f".model-{number} .candidate.choice")).to_have_count(1)
            expect(disk.locator(f".model-{number} .candidate.truth")).to_have_count(1)
            shares = disk.locator(f".model-{number} .share").all_inner_texts()
            assert abs(sum(int(re.sub(r"\D", "", share)) for share in shares) - 100) <= 2
    disk.set_viewport_size({"width": 1100, "height": 1300})
    holes.first.hover()
    disk.wait_for_timeout(250)  # bars have grown
    disk.locator(".selfie-board").screenshot(path=SCREENSHOTS / "inspector.png")  # notebook 07 shows it
    disk.locator(".model-0 .candidate").nth(2).hover()
    for number in range(2):
        expect(words.nth(number)).to_contain_text("Patch C is likeliest at location")
        expect(disk.locator(f".model-{number} .cell.most")).to_have_count(1)
    assert "whole puzzle" in hint(disk).inner_text()
    button(disk, "attention").click()
    maps = disk.locator(".model-1 .maps button")
    expect(maps).to_have_count(4 * 9)
    before = seen(disk)
    maps.nth(9 * 2 + 4).click()
    assert seen(disk) != before and "In block 1, head 3, the mask token" in words.nth(1).inner_text()
    button(disk, "whole puzzle").click()
    expect(disk.locator(".small")).to_have_count(4)
    disk.locator(".choose summary").click()
    disk.get_by_label("compare with").select_option("nothing")
    expect(disk.locator(".panel")).to_have_count(1)


def test_who_looks_first_is_not_counted(disk):
    button(disk, "see what the models believe").click()
    button(disk, "back to the puzzle").click()
    play(disk)
    expect(disk.locator(".result")).to_contain_text("does not count")


@pytest.mark.parametrize("disk", [{"reduced_motion": "reduce"}, {"reduced_motion": "no-preference"}], indirect=True)
def test_nothing_moves_for_those_who_want_no_motion(disk):
    moves = disk.locator(".bar").first.evaluate("bar => getComputedStyle(bar).transitionDuration")
    assert (moves == "0s") == disk.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches")


def upload(page, file):
    page.get_by_label("an image of your own").set_input_files(file)


def test_the_page_of_inspect(inspect, tmp_path):
    expect(inspect.get_by_role("heading", name="What belongs where?")).to_be_visible()
    expect(inspect.locator(".cell").first).to_be_visible()
    require_access(inspect, "inspect_1_dark")
    inspect.emulate_media(color_scheme="light")
    require_access(inspect, "inspect_1")
    play(inspect)
    expect(inspect.locator(".result")).to_contain_text("1 round")
    button(inspect, "next puzzle").click()
    expect(inspect.locator(".model-0 .cell.hole")).to_have_count(4)
    button(inspect, "see what the model believes").click()
    inspect.locator(".choose summary").click()
    for label, value in (
        ("compare with", "mask_token"),
        ("class", "ship"),
        ("model", "mask_token"),
        ("images", "photos"),
    ):
        before, until = seen(inspect), time.monotonic() + 60
        inspect.get_by_label(label, exact=True).select_option(value)
        while seen(inspect) == before and time.monotonic() < until:
            time.sleep(0.05)
        assert seen(inspect) != before
    expect(inspect.locator(".crop")).to_contain_text("224×224 pixels, shrunk to 32×32")
    inspect.get_by_label("patches hidden").fill("15")
    expect(inspect.locator(".model-0 .cell.hole")).to_have_count(15)
    inspect.get_by_label("patches hidden").fill("4")
    expect(inspect.locator(".model-0 .cell.hole")).to_have_count(4)
    button(inspect, "choose the holes by hand").click()
    inspect.locator(".model-0 .cell:not(.hole)").first.click()
    expect(inspect.locator(".model-0 .cell.hole")).to_have_count(5)
    button(inspect, "choose the holes by hand").click()
    require_access(inspect, "inspect_2")
    inspect.locator(".take summary").click()
    expect(inspect.locator("textarea")).to_have_value(
        re.compile("PatchInspector.'mask_token', 'photos', compare='mask_token'")
    )
    with inspect.expect_download() as download:
        button(inspect, "save as PNG").click()
    download.value.save_as(tmp_path / "saved.png")
    assert Image.open(tmp_path / "saved.png").width > 300


def test_uploads(inspect, tmp_path):
    inspect.bring_to_front()
    inspect.locator(".choose").evaluate("fold => { fold.open = true; }")
    message = inspect.locator(".message")
    (tmp_path / "broken.png").write_text("no image")
    Image.new("RGB", (20, 31)).save(tmp_path / "tiny.png")
    for file, said in (("broken.png", "cannot be read"), ("tiny.png", "20×31 pixels, but the model takes 32×32")):
        upload(inspect, tmp_path / file)
        expect(message).to_contain_text(said)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    picture = Image.effect_noise((60, 40), 90)
    picture.save(tmp_path / "grey.png")
    picture.convert("RGB").resize((40, 60)).save(tmp_path / "portrait.jpg")
    picture.convert("RGB").save(tmp_path / "turned.jpg", exif=rotated)
    picture.convert("LA").save(tmp_path / "transparent.png")
    Image.effect_noise((6000, 4000), 90).convert("RGB").save(tmp_path / "large.jpg", quality=97)
    assert (tmp_path / "large.jpg").stat().st_size > 10_000_000, "more than Jupyter's socket takes"
    for file, said in {
        "grey.png": "60×40 pixels, cut", "portrait.jpg": "40×60 pixels, cut", "turned.jpg": "40×60 pixels, cut",
        "transparent.png": "60×40 pixels, cut", "large.jpg": "3072×2048 pixels, cut",
    }.items():  # fmt: skip
        upload(inspect, tmp_path / file)
        expect(inspect.locator(".choose summary")).to_contain_text(file)
        expect(inspect.locator(".crop")).to_contain_text(said)
        expect(message).to_be_hidden()
    require_access(inspect, "inspect_3_upload")


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_of_notebook_07_lives_without_python_and_network(browser, folder, look):
    page = open_page(
        browser, write_html(folder / "nbs" / "07_patch_inspector.ipynb", {"all": "x"}).as_uri(), **LOOKS[look]
    )
    page.context.set_offline(True)
    assert (folder / "nbs" / "07_patch_inspector.html").stat().st_size < 1_500_000
    assert page.evaluate("[...document.images].every((image) => image.alt && image.naturalWidth)")
    for _ in range(20):
        expect(page.locator(".choose summary")).to_contain_text("sample, image")
        button(page, "next puzzle").click()
    play(page)
    expect(page.locator(".result")).to_contain_text("1 round")
    require_access(page, f"{look}_8_page_07")
    page.context.close()


def test_notebook_07_in_jupyterlab(browser, serve):
    words = ["--no-browser", "--allow-root", "--ServerApp.root_dir=nbs", "--IdentityProvider.token=secret"]
    words += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    place = re.match(r".*:\d+", serve("jupyterlab", *words))[0] + "/lab/tree/07_patch_inspector.ipynb?token=secret"
    page = open_page(browser, place)
    expect(page.get_by_text("| Idle")).to_be_visible()  # the kernel is there
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    board = page.locator(".selfie-board").first
    expect(board.locator(".cell").first).to_be_visible()
    board.scroll_into_view_if_needed()
    cells = page.locator(".jp-Notebook-cell").count()
    board.locator(".cell:enabled").first.focus()
    for letter in "abcd":  # in Lab the keys A and B make cells, and D twice takes one away
        page.keyboard.press(letter)
    expect(board.locator(".candidate.placed")).to_have_count(4)
    button(board, "check").click()
    expect(board.locator(".result")).to_contain_text("1 round")
    button(board, "next puzzle").click()
    expect(board.locator(".cell.hole")).to_have_count(4)
    assert page.locator(".jp-Notebook-cell").count() == cells
    page.screenshot(path=SCREENSHOTS / "lab.png")
    page.context.close()
