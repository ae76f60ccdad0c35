"""Figures 5 and 6: the page and its API with many tokens, in a real Airflow and a real browser."""

from __future__ import annotations

import json
import time
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from playwright.sync_api import Page, Route, sync_playwright

from benchmarks.measure import Figure, alternate, timed
from benchmarks.sizes import Sizes
from demo.names import CONNECTION, DAG
from demo.parts import AirflowHome, PartFailed, find_browser
from demo.up import add_admin
from flowauth_rotator.provider.managed_tokens import LIST_VARIABLE
from flowauth_rotator.server.signing import Signer, compress_claims, generate_key

AIRFLOWS_PAGE = 100  # rows that its own API gives at once
API = "flowauth-rotator/api/tokens"
PAINTED = """() => new Promise((resolve) => {
  const look = () => {
    if (document.body?.hasAttribute("aria-busy") ?? true) requestAnimationFrame(look);
    else requestAnimationFrame(() => setTimeout(() => resolve(performance.now()), 0));
  };
  look();
})"""


@dataclass(frozen=True)
class Client:
    """A client of an Airflow.

    Attributes:
        url: Airflow's address.
        bearer: what they present.
    """

    url: str
    bearer: str

    @classmethod
    def signed_in(cls, url: str, password: str) -> Client:
        """The admin."""
        asked = json.dumps({"username": "admin", "password": password}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/auth/token", asked, headers)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return cls(url, json.load(answer)["access_token"])

    def get(self, path: str) -> int:
        """How many bytes are answered."""
        headers = {"Authorization": f"Bearer {self.bearer}"}
        request = urllib.request.Request(f"{self.url}/{path}", headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return len(answer.read())

    def list_variables(self, count: int) -> None:
        """Airflow's own list of so many Variables."""
        for offset in range(0, count, AIRFLOWS_PAGE):
            self.get(f"api/v2/variables?limit={AIRFLOWS_PAGE}&offset={offset}")


def measure_page(folder: Path, sizes: Sizes) -> list[Figure]:
    """Ask the API beside Airflow's own list; show the page beside the page without a token."""
    home = prepare_airflow(folder, sizes.page_tokens)
    password = add_admin(home)
    with home.running() as url:
        return [
            measure(url, password, sizes.page_tokens, sizes.page_views)
            for measure in (_measure_answer, _measure_painting)
        ]


@cache
def prepare_airflow(folder: Path, tokens: int) -> AirflowHome:
    """Set up an Airflow whose DAG has checked so many tokens; the same arguments share one."""
    home = AirflowHome(folder / f"{tokens}-tokens")
    home.set_up()
    store_tokens(home, tokens)
    if home.airflow("dags", "test", DAG):
        raise PartFailed(f"A run of the DAG failed; see {home.log}")
    return home


def store_tokens(home: AirflowHome, count: int) -> None:
    """Store so many tokens that live for a day, the list of them, and their connection."""
    signer, now = Signer(generate_key()), int(time.time())
    claims = {"iat": now, "nbf": now, "exp": now + 86400, "sub": "flowbot", "aud": "TEST_SERVER"}
    claims["user_claims"] = compress_claims({"runner": ["run"], "viewer": ["get_results"]})
    keys = [f"FLOWAPI_JWT_{number}" for number in range(count)]
    values: dict[str, object] = {key: signer.sign({**claims, "jti": key}) for key in keys}
    entries = [{"variable": key, "rehearse_every": None} for key in keys]  # no issuer is there
    home.load("variables", values | {LIST_VARIABLE: entries})
    home.load("connections", {CONNECTION: {"conn_type": "flowauth", "host": "127.0.0.1"}})


def _measure_answer(url: str, password: str, tokens: int, repetitions: int) -> Figure:
    admin = Client.signed_in(url, password)
    pairs = alternate(
        timed(lambda: admin.list_variables(tokens)), timed(lambda: admin.get(API)), repetitions
    )
    size = admin.get(API) // 1024
    return Figure(
        5,
        f"the page's API, {tokens} tokens",
        f"Airflow's own list of the {tokens} Variables",
        pairs,
        2.0,
        note=f"{size} KiB",
    )


def _measure_painting(url: str, password: str, tokens: int, repetitions: int) -> Figure:
    program = find_browser()
    if not program:
        raise PartFailed("Chromium is missing. On Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{url}/flowauth-rotator/")
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", password)
        page.press("input[name=password]", "Enter")
        page.wait_for_url("**/flowauth-rotator/")
        all_of_it = page.request.get(f"{url}/flowauth-rotator/api/tokens").json()
        none = {**all_of_it, "tokens": []}
        pairs = alternate(
            lambda: _painted(page, url, none),
            lambda: _painted(page, url, all_of_it),
            repetitions,
        )
        browser.close()
    return Figure(
        6,
        f"the page with all of {tokens} rows",
        "the same without a token",
        pairs,
        200,
        unit="ms",
        note="from an answer that is there; the first rows are painted before",
    )


def _painted(page: Page, url: str, document: object) -> float:
    """Seconds from the call of the page to the frame in which its rows are."""

    def answer(route: Route) -> None:
        route.fulfill(json=document)

    page.route("**/api/tokens", answer)
    page.goto(f"{url}/flowauth-rotator/", wait_until="commit")
    seconds = float(page.evaluate(PAINTED)) / 1000
    page.unroute("**/api/tokens", answer)
    return seconds
