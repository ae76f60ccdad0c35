"""Renewing by hand: what is offered and what is not, what one sees of it, and what comes of it."""

import json
import re
import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import expect

from demo.parts import ROOT, free_port, wait_until
from flowauth_rotator.core.tokens import Token, read_unverified
from tests.e2e.search import parts_of
from tests.page.browsing import (
    Visitor,
    by_navigation,
    open_row,
    pick,
    rehearse,
    renew,
    renew_button,
    row,
)
from tests.page.site import TIME_ZONE

DAG = "flowauth_token_rotation"
HOUR = 3600
DAY = 24 * HOUR
A_DAG = """
from flowauth_rotator.provider import ManagedToken, rotation_dag  # Airflow

dag = rotation_dag([ManagedToken({variable!r})], dag_id={dag_id!r})
"""
IMPATIENT_DAG = """
from flowauth_rotator.provider import ManagedToken, rotation_dag  # Airflow

dag = rotation_dag(
    [ManagedToken("DOWN_TOKEN", flowauth_conn_id="down")], dag_id="impatient"
)
dag.get_task("rotate").partial_kwargs["retries"] = 0
"""
OF_DAGS = {  # what becomes of them; two manage the same token
    "sleeping": "PAUSED",
    "torn": "BROKEN",
    "gone": "GONE",
    "first": "SHARED",
    "second": "SHARED",
}
WHERE = {  # in Airflow 3 and 2
    "Open the Variable": ("/variables", "/variable/list/"),
    "See the import errors": ("/", "/home"),
    "Unpause the DAG": ("/dags/sleeping", "/dags/sleeping/grid"),
}


@pytest.fixture(scope="module", autouse=True)
def tokens(site, issuer):
    """Tokens of two hours, and each thing that may be wrong with one; all have been looked at."""
    stored = {"FLOWAPI_TOKEN": issuer.mint("AIRFLOW", lifetime_minutes=120)} | {
        f"{name}_TOKEN": issuer.mint(name, lifetime_minutes=120)
        for name in ("TWICE", "MEANWHILE", "REHEARSED", "DOWN", *set(OF_DAGS.values()))
    }
    for role in ("FRAGILE", "SHORT"):
        issuer.add_role(role.lower(), max_lifetime_minutes=120)
        stored[f"{role}_TOKEN"] = issuer.mint(role, [role.lower()], 120)
    stored["BARE_TOKEN"] = issuer.mint("BARE", issued_at=int(time.time()) - 2700)
    issuer.forget_roles(issuer.rows("BARE")[0].id)
    stored["EXPIRED_TOKEN"] = issuer.mint("EXPIRED", issued_at=int(time.time()) - DAY)
    stored["MALFORMED_TOKEN"] = f"Bearer {stored['TWICE_TOKEN']}"
    listed = [key for key in stored if key.removesuffix("_TOKEN") not in OF_DAGS.values()]
    listed.remove("DOWN_TOKEN")
    listed.append("MISSING_TOKEN")
    site.home.load(
        "variables",
        stored | {"flowauth_rotator_tokens": json.dumps([{"variable": key} for key in listed])},
    )
    at = {"conn_type": "flowauth", "login": issuer.username, "password": issuer.password}
    site.home.load(
        "connections",
        {
            "down": at | {"host": f"http://127.0.0.1:{free_port()}"},
        },
    )
    site.put_dag("default", (ROOT / "dags" / "flowauth_token_rotation.py").read_text())
    for dag_id, name in OF_DAGS.items():
        site.put_dag(dag_id, A_DAG.format(dag_id=dag_id, variable=f"{name}_TOKEN"))
    site.put_dag("impatient", IMPATIENT_DAG)
    site.wait_for_checks(DAG, "impatient", *OF_DAGS)


@pytest.fixture(scope="module")
def in_trouble(site):
    """One DAG is paused, one has an import error, and the file of one is gone."""
    site.pause("sleeping")
    site.put_dag("torn", "import airflow.nothing_of_this_name  # dag")
    (site.dags / "gone.py").unlink()

    def states():
        return {dag["dag_id"]: dag["condition"] for dag in site.overview()["dags"]}

    wanted = {"sleeping": "paused", "torn": "broken", "gone": "missing"}
    wait_until(lambda: states().items() >= wanted.items(), "Airflow notices")


def failure_of(where, name):
    """What the row says about the last attempt: of the token, or of the request alone."""
    failure = ".failure:visible, .event[data-result=failure]:visible"
    return open_row(where, name).locator(failure)


def test_a_token_is_renewed_in_sight(site, issuer, visit):
    """Found by the navigation; asked for six hours, swapped, and shown without a reload."""
    visitor = visit("admin")
    page = by_navigation(site, visitor)
    old = Token(site.variable("FLOWAPI_TOKEN"))
    airflow = row(page, "AIRFLOW")
    expect(airflow).to_contain_text("1 h 5")
    with issuer.holding(f"/tokens/tokens/{issuer.rows('AIRFLOW')[0].id}/renew"):
        renew(page, "AIRFLOW", minutes=360)
        expect(airflow.locator(".progress")).to_contain_text("Renewing.")
        expect(airflow.locator(".steps li")).to_have_text(["Queued", "Check", "Renew", "Report"])
        expect(renew_button(page, "AIRFLOW")).to_have_attribute("aria-disabled", "true")
    expect(page.locator("#announcement")).to_contain_text("AIRFLOW was renewed.")
    success = re.compile(r"Renewed: expires \w{3} \d\d:\d\d, 4\sh.* later than before\.")
    expect(airflow.locator(".event")).to_contain_text(success)
    expect(airflow).to_contain_text("5 h 59 min left")
    expect(airflow).to_contain_text("the newest token is in use")
    expect(airflow.locator(".progress")).to_be_hidden()
    expect(renew_button(page, "AIRFLOW")).not_to_have_attribute("aria-disabled", "true")
    new = Token(site.variable("FLOWAPI_TOKEN"))
    assert new != old
    claims = read_unverified(new)
    assert claims.expires_at - claims.issued_at == timedelta(hours=6)
    first, second = issuer.rows("AIRFLOW")
    assert (second.parent_id, second.expires_at) == (first.id, claims.expires_at.timestamp())
    logged = site.ask("SELECT owner, extra FROM log WHERE event = 'flowauth_rotator.renew'")
    assert [who for who, what in logged if "FLOWAPI_TOKEN" in what] == ["admin"]


def test_many_clicks_are_one_renewal(site, issuer, visit):
    """A double click, another tab, another person: the issuer is asked once, and all see it."""
    admin, colleague = visit("admin"), visit("colleague")
    tabs = [admin.page, admin.context.new_page(), colleague.page]
    for tab in tabs:
        Visitor.open(admin, site.page, tab)
    started = len(site.renewals(DAG))
    renew_button(tabs[0], "TWICE").dblclick()
    for tab in tabs[1:]:
        renew_button(tab, "TWICE").click()
    for tab in tabs:
        expect(tab.locator("#announcement")).to_contain_text("TWICE was renewed.")
    assert len(site.renewals(DAG)) == started + 1
    first, _ = issuer.rows("TWICE")
    assert issuer.requests.count(f"POST /tokens/tokens/{first.id}/renew") == 1
    assert site.tokens()["TWICE"]["run"]["requested_by"] in (None, "admin")


def test_a_rehearsal_shows_each_step_and_issues_nothing(site, issuer, visit):
    """All of a renewal but the request; the token stays as it is, and the log names who asked."""
    old, rows = site.variable("REHEARSED_TOKEN"), len(issuer.rows("REHEARSED"))
    page = visit("admin").open(site.page)
    rehearse(page, "REHEARSED")
    event = row(page, "REHEARSED").locator(".event")
    expect(event).to_contain_text(re.compile("The renewal due at .* will work."))
    steps = event.locator("li[data-result=success]")
    expect(steps.filter(has_text="Variable REHEARSED_TOKEN can be written.")).to_be_visible()
    expect(steps.filter(has_text="The issuer accepts a renewal of REHEARSED.")).to_be_visible()
    expect(event.locator("[data-result=failure]")).to_have_count(0)
    assert (site.variable("REHEARSED_TOKEN"), len(issuer.rows("REHEARSED"))) == (old, rows)
    logged = site.ask("SELECT owner, extra FROM log WHERE event = 'flowauth_rotator.renew'")
    assert [who for who, what in logged if "REHEARSED_TOKEN" in what] == ["admin"]


def test_an_outdated_row_is_not_renewed_twice(site, issuer, visit):
    """Renewed meanwhile in another tab: not done twice, and said until one asks again."""
    here, elsewhere = visit("admin"), visit("admin")
    page = here.open(site.page)
    page.route(re.compile("/api/tokens$"), lambda route: route.abort())
    renew(elsewhere.open(site.page), "MEANWHILE")
    expect(elsewhere.page.locator("#announcement")).to_contain_text("MEANWHILE was renewed.")
    renew(page, "MEANWHILE")
    error = row(page, "MEANWHILE").get_by_role("alert")
    expect(error).to_contain_text("The token was renewed in the meantime.")
    expect(page.locator("#error-banner")).to_contain_text("Airflow does not respond")
    assert len(issuer.rows("MEANWHILE")) == 2
    page.unroute(re.compile("/api/tokens$"))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#error-banner")).to_be_hidden()
    expect(open_row(page, "MEANWHILE")).to_contain_text("the newest token is in use")
    expect(error).to_contain_text("The token was renewed in the meantime.")
    renew(page, "MEANWHILE")
    expect(error).to_be_hidden()
    expect(page.locator("#announcement")).to_contain_text("MEANWHILE was renewed.")
    assert len(issuer.rows("MEANWHILE")) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FRAGILE", "no longer assigned to you: fragile"),
        ("SHORT", "exceeds the maximum permitted"),
        ("DOWN", "cannot be reached"),
    ],
)
def test_a_failure_stays_until_the_next_attempt(site, issuer, visit, name, words):
    """The issuer's words beneath the row, also for who comes later; the token stays as it is."""
    if name == "FRAGILE":
        issuer.revoke("fragile")
    if name == "SHORT":
        issuer.limit("short", minutes=60)
    old = Token(site.variable(f"{name}_TOKEN"))
    visitor = visit("admin")
    page = visitor.open(site.page)
    renew(page, name, minutes=720)
    expect(failure_of(page, name)).to_contain_text(words)
    expect(page.locator("#announcement")).to_contain_text(f"{name} was not renewed.")
    visitor.open(site.page)
    expect(failure_of(page, name)).to_contain_text(words)
    assert Token(site.variable(f"{name}_TOKEN")) == old
    if name == "FRAGILE":
        issuer.grant("fragile")
        renew(page, name)
        expect(failure_of(page, name)).to_be_hidden()
        expect(page.locator("#announcement")).to_contain_text(f"{name} was renewed.")
        visitor.open(site.page)
        expect(failure_of(page, name)).to_be_hidden()


def test_what_one_is_at_is_kept_when_the_page_looks_again(site, visit):
    """Open details, a chosen lifetime, half-typed minutes and the place of the keyboard."""
    visitor = visit("admin")
    page = visitor.open(site.page)
    twice = open_row(page, "TWICE")
    pick(page, "TWICE", "other…")
    minutes = page.get_by_role("textbox", name="Minutes TWICE")
    minutes.press_sequentially("12x")
    with page.expect_response("**/api/tokens") as answered:
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    answered.value.finished()
    expect(minutes).to_be_focused()
    expect(minutes).to_have_value("12x")
    expect(twice).to_contain_text("get_available_dates")
    minutes.press("Enter")
    expect(twice.get_by_role("alert")).to_contain_text("Enter whole minutes")
    expect(minutes).to_be_focused()
    assert not [asked for asked in visitor.asked if asked[0] == "POST"]


def test_an_address_leads_to_a_row(site, visit):
    """That of the page in Airflow's navigation with the Variable's key, as a task's link has it."""
    page = visit("admin").page
    page.set_viewport_size({"width": 1280, "height": 400})
    where = "flowapi-tokens/" if site.two else "plugin/flowapi-tokens"
    page.goto(f"{site.url}/{where}#TWICE_TOKEN")
    heading = page.frame_locator("iframe").get_by_role("heading", name="TWICE", exact=True)
    expect(heading).to_be_in_viewport()


@pytest.mark.parametrize(
    ("name", "why", "way_out", "there"),
    [
        ("MISSING_TOKEN", "does not contain a token to renew", "Open the Variable", "Variable"),
        (
            "MALFORMED_TOKEN",
            "does not contain a token to renew",
            "Open the Variable",
            "MALFORMED_TOKEN",
        ),
        (
            "EXPIRED",
            "issuer no longer renews this token",
            "Open the Variable",
            "EXPIRED_TOKEN",
        ),
        ("BARE", "issuer no longer renews this token", "Open the Variable", "BARE_TOKEN"),
        ("PAUSED", "The DAG is paused.", "Unpause the DAG", "sleeping"),
        ("BROKEN", "import error", "See the import errors", "mport"),
        ("GONE", "put its file back into the dags folder", None, ""),
    ],
)
def test_what_cannot_be_renewed_says_why_and_shows_the_way_out(
    site, visit, in_trouble, name, why, way_out, there
):
    """The button is disabled, tells a screen reader the message, and asks nobody when pressed."""
    visitor = visit("admin")
    page = by_navigation(site, visitor)
    button = renew_button(page, name)
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_have_accessible_description(re.compile(re.escape(why)))
    expect(row(page, name).locator(".impossible")).to_contain_text(why)
    button.press("Enter")
    button.click(force=True)
    assert not [asked for asked in visitor.asked if asked[0] == "POST" and "renew" in asked[1]]
    if not way_out:
        return
    row(page, name).get_by_role("link", name=way_out).click()
    visitor.page.wait_for_url(re.compile(f"({'|'.join(WHERE[way_out])})([?#].*)?$"))
    expect(visitor.page.locator("body")).to_contain_text(there)


def test_a_token_of_two_dags_says_so_in_both_rows(site, visit):
    """Both are a warning, name both DAGs, and are not renewed until one of them gives it up."""
    page = visit("admin").open(site.page)
    rows = page.get_by_role("listitem").filter(
        has=page.get_by_role("heading", name="SHARED", exact=True)
    )
    expect(rows).to_have_count(2)
    for shared in rows.all():
        expect(shared).to_have_attribute("data-severity", "warning")
        expect(shared).to_contain_text("2 DAGs: first, second")
        expect(shared).to_contain_text("Remove the Variable from all DAGs but one.")
        button = shared.get_by_role("button", name="Renew SHARED", exact=True)
        expect(button).to_have_attribute("aria-disabled", "true")


def test_times_are_in_the_zone_of_airflows_ui(site, visit):
    """Which has 45 minutes more than whole hours."""
    page = visit("admin").open(site.page)
    issued_at = site.tokens()["TWICE"]["issued_at"]
    local = datetime.fromtimestamp(issued_at, ZoneInfo(TIME_ZONE))
    expect(open_row(page, "TWICE")).to_contain_text(f"{local:%H:%M} GMT+5:45")


def test_no_part_of_a_token_was_shown(site, issuer):
    """Not in any answer to a browser or a client, in the database, or in a log."""
    assert {"dag_run"} < site.leaks("flowauth_token_rotation")
    assert len(issuer.signer.signed) > 10
    assert site.leaks(*parts_of(*issuer.signer.signed), issuer.password) == set()
