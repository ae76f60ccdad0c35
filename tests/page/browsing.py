"""A person at a browser, and all that the browser has been told and has complained of."""

import base64
import contextlib
import json
import re

from playwright.sync_api import expect, sync_playwright

from demo.parts import ROOT, WAIT_LIMIT
from tests.e2e.search import OWN_TOKEN

SCREENS = ROOT / ".pytest_screens"
HARMLESS = re.compile(  # what a test has asked for: a refusal, or no answer
    r"Failed to load resource: (the server responded with a status of 4\d\d|net::ERR_FAILED)"
)


CUT_OFF = """link => [...link.querySelectorAll("*")]
  .filter((part) => part.clientWidth && part.scrollWidth > part.clientWidth)
  .map((part) => part.textContent)"""


@contextlib.contextmanager
def open_browser(program):
    """A headless browser, until the block ends."""
    expect.set_options(timeout=WAIT_LIMIT * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--disable-background-networking"]
        )
        yield browser
        browser.close()


def sign_in(page, username, password):
    """Fill in the form that is shown, of either Airflow."""
    page.fill("input[name=username]", username)
    page.fill("input[name=password]", password)
    page.click("input[type=submit], button[type=submit]")
    page.wait_for_url(lambda url: "/login" not in url)


class Visitor:
    """A person in a browser of their own, with one tab to begin with.

    Attributes:
        page: the tab.
        complaints: what the browser complained of on the page or on what it was kept from doing.
        asked: the requests, as (method, address).
    """

    def __init__(self, context, record, seen):
        self.context, self._record, self._seen = context, record, seen
        self.complaints, self.asked = [], []
        context.set_default_timeout(WAIT_LIMIT * 1000)
        context.on("console", self._hear)
        context.on("weberror", self._see)
        context.on("request", lambda request: self.asked.append((request.method, request.url)))
        self.page = context.new_page()

    def _hear(self, message):
        ours = "flowauth-rotator" in message.location.get("url", "")
        policy = "Content Security Policy" in message.text
        if message.type == "error" and (ours or policy) and not HARMLESS.match(message.text):
            self.complaints.append(message.text)

    def _see(self, told):
        """Not what Airflow's own pages do wrong."""
        if "flowauth-rotator" in (told.error.stack or ""):
            self.complaints.append(str(told.error))

    def open(self, address, tab=None):
        """Go to the page, and wait until it shows something; the answer is the tab."""
        tab = tab or self.page
        tab.goto(address)
        expect(tab.locator("#loading")).to_be_hidden()
        return tab

    def leave(self):
        """Close the browser and keep the text of all answers as files."""
        self.context.close()
        entries = json.loads(self._record.read_text())["log"]["entries"]
        self._record.unlink()
        for number, entry in enumerate(entries):
            answer = entry["response"]
            content = answer["content"]
            text = content.get("text", "")
            if content.get("encoding") == "base64":
                text = base64.b64decode(text).decode("latin-1")
            headers = "\n".join(
                f"{it['name']}: {it['value']}" for it in entry["response"]["headers"]
            )
            told = re.sub(OWN_TOKEN, "", f"{entry['request']['url']}\n{headers}\n\n{text}")
            (self._seen / f"{self._record.stem}-{number}").write_text(told)


def by_navigation(site, visitor):
    """Find the page in Airflow's navigation, which shows its whole name; return its frame."""
    page = visitor.page
    page.goto(site.url)
    if site.two:
        page.get_by_role("link", name="Admin").hover()
    link = page.get_by_role("link", name="FlowAPI tokens" if site.two else "FlowAPI")
    assert link.evaluate(CUT_OFF) == []
    link.click()
    frame = page.frame_locator("iframe")
    expect(frame.locator("#loading")).to_be_hidden()
    return frame


def row(where, name):
    """The row of a token, on the page or in a frame of it."""
    heading = where.get_by_role("heading", name=name, exact=True)
    return where.get_by_role("listitem").filter(has=heading)


def open_row(where, name):
    """Open the details of a token, if they are not; the answer is its row."""
    toggle = where.get_by_role("button", name=name, exact=True)
    if toggle.get_attribute("aria-expanded") == "false":
        toggle.click()
    return row(where, name)


def renew_button(where, name):
    """The button in the row, which is opened."""
    return open_row(where, name).get_by_role("button", name=f"Renew {name}", exact=True)


def rehearse(where, name):
    """Press the button for a rehearsal."""
    open_row(where, name).get_by_role("button", name=f"Rehearse {name}", exact=True).click()


def pick(where, name, lifetime):
    """Choose the lifetime that is asked for."""
    picker = open_row(where, name).get_by_role("combobox", name=f"Lifetime {name}", exact=True)
    picker.select_option(label=lifetime)


def renew(where, name, minutes=None):
    """Enter a lifetime, if one is given, and press the button."""
    if minutes:
        pick(where, name, "other…")
        where.get_by_role("textbox", name=f"Minutes {name}", exact=True).fill(str(minutes))
    renew_button(where, name).click()


def keep_picture(page, name):
    """For somebody who wants to look at it."""
    SCREENS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}.png", full_page=True)
