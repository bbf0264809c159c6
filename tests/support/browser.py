"""Headless Chromium, driven by Selenium, and its requests."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1100,1000",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
Found = TypeVar("Found")
SECONDS = 30.0
"""That anything on a page may take."""


class Browser:
    """One window.

    Args:
        driver: Of the window.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def wait_for(self, selector: str) -> WebElement:
        return self.wait(lambda: self.all(selector), f"there is no {selector}")[0]

    def wait(self, found: Callable[[], Found], problem: str) -> Found:
        return WebDriverWait(self.driver, SECONDS).until(lambda _: found(), problem)

    @property
    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    def asked_for(self) -> set[str]:
        """Return the addresses that were asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]  # type: ignore[no-untyped-call]
        kinds = {"Network.requestWillBeSent": "request", "Network.webSocketCreated": None}
        found = [(kinds[m["method"]], m["params"]) for m in messages if m["method"] in kinds]
        return {params[part]["url"] if part else params["url"] for part, params in found}


@contextmanager
def chromium(folder: Path, *further: str) -> Iterator[Browser]:
    """Open a window with a profile of its own; skip the test where there is no Chromium with its driver."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in (*OPTIONS, f"--user-data-dir={folder}", *further):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(executable_path=driver, log_output=os.devnull))
    try:
        yield Browser(window)
    finally:
        window.quit()
