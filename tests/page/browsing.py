"""A person at a browser, and all that the browser has been told and has complained of."""

import contextlib
import json
import os
import re
import shutil

import pytest
from playwright.sync_api import Error, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60_000  # milliseconds


@contextlib.contextmanager
def a_browser():
    """The Chromium of this machine."""
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    if not found:
        pytest.fail("chromium is needed. On Debian: apt-get install chromium", pytrace=False)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found[0], args=["--disable-background-networking"]
        )
        yield browser
        browser.close()
