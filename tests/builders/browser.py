"""Chromium without a window, for pages that people look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from tests.builders.programs import need

LIMIT_S = 60.0


@contextmanager
def headless(*arguments: str) -> Iterator[Chrome]:
    """A browser with further arguments, for the time of the block; the test is skipped where there is none."""
    options = Options()
    options.binary_location = need("chromium", "chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(need("chromedriver", "chromium-driver")))
    driver.set_page_load_timeout(LIMIT_S)
    try:
        yield driver
    finally:
        driver.quit()
