import shutil

import pytest

from selfie_lite import SelfieLiteError
from selfie_lite.benchmarks.inspector import KEYS, time_inspector

BROWSER = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))


@pytest.mark.skipif(not BROWSER, reason="no browser: install Debian's package chromium (apt-get install chromium)")
def test_bench_inspector_times_every_key_and_weighs_a_puzzle():
    result = time_inspector(rounds=2)
    assert {row["change"] for row in result["changes"]} == {*KEYS, "next puzzle, in the kernel"}
    assert all(0 < row["milliseconds"]["median"] < 60_000 for row in result["changes"])
    assert {"additive", "mask_token"} < set(result["bytes"]) and max(result["bytes"].values()) < 16_000


def test_without_a_browser_it_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SelfieLiteError, match="needs Playwright and Chromium"):
        time_inspector(rounds=1)
