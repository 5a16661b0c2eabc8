"""A report's page in headless Chromium: how wide it is in a window of some width, and what it asked the network for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def look(page: Path, *widths: int) -> list[tuple[int, int]]:
    """For each width of the window: by how many pixels the page is wider than it, and the requests made."""
    driver, browser = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or browser is None:
        if os.environ.get("SYNTHOMA_NEEDS_BROWSER"):
            pytest.fail("no chromium and chromedriver here")
        pytest.skip("no chromium and chromedriver here")
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium here")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in _FLAGS:
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        seen = []
        for width in widths:
            # a frame of this width: a headless window cannot be narrower than 500 pixels
            chrome.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
            )
            chrome.get(page.as_uri())
            beyond = chrome.execute_script(
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            requests = chrome.execute_script("return performance.getEntriesByType('resource').length")
            seen.append((int(beyond), int(requests)))
        return seen
    finally:
        chrome.quit()
