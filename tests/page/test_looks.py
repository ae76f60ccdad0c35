"""How the page looks: with no token, one, hostile ones and two hundred; in any light and width."""

import time
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import jwt
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from flowauth_rotator.core.text import remove_control_characters
from flowauth_rotator.core.tokens import LONGEST_NAME
from flowauth_rotator.monitoring.dag_assessment import Condition, assess_dag
from flowauth_rotator.monitoring.json_output import render_dag
from flowauth_rotator.monitoring.status import Event, RotationDagStatus
from tests.page.browsing import keep_picture, open_row

HEIGHT = 900
SCRIPT = "<img src=x onerror=\"document.title='owned'\">"
HOSTILE = {  # names by Variable
    "SCRIPT_TOKEN": SCRIPT,
    "QUOTES_TOKEN": "'\"`</script><b>&amp;{{7*7}}",
    "RIGHT_TO_LEFT_TOKEN": "\u202eגנב\u202d \u2066abc",
    "EMOJI_TOKEN": "🔑👩‍🚀 clé",
    "CONTROL_TOKEN": "one\ttwo\x07\x1bthree",
    "LONG_TOKEN": "n" * 75,
    "LONGER_TOKEN": ("Name of two hundred characters " * 7)[:LONGEST_NAME],
    f"{'V' * 230}_TOKEN": "long key",
}
A_DAG = """
from flowauth_rotator.provider import ManagedToken, rotation_dag  # Airflow

dag = rotation_dag(
    [ManagedToken(key, name=name) for key, name in {names!r}.items()], dag_id={dag_id!r}
)
"""


def token_of_flowauth(key):
    """A token that does not carry its name, as FlowAuth's do not; all it says is hostile."""
    now = int(time.time())
    claims = {"iat": now, "nbf": now, "exp": now + 7200, "sub": SCRIPT, "aud": SCRIPT}
    return jwt.encode(claims | {"user_claims": {SCRIPT: [SCRIPT]}}, key, "RS256")


@pytest.fixture(scope="module")
def one(site, issuer):
    """A token; its name."""
    site.home.load("variables", {"SEEN_TOKEN": issuer.mint("SEEN", lifetime_minutes=120)})
    site.put_dag("one", A_DAG.format(names={"SEEN_TOKEN": "SEEN"}, dag_id="one"))
    site.wait_for_checks("one")
    return "SEEN"


@pytest.fixture(scope="module")
def hostile(site, signing_key):
    """Tokens that say hostile things; their names."""
    site.home.load("variables", {key: token_of_flowauth(signing_key) for key in HOSTILE})
    site.put_dag("hostile", A_DAG.format(names=HOSTILE, dag_id="hostile"))
    site.wait_for_checks("hostile")
    return list(HOSTILE.values())


@pytest.fixture(scope="module")
def unnamed(site, signing_key):
    """A token whose name Airflow does not know; the key of its Variable."""
    key = "UNNAMED_TOKEN"
    site.home.load("variables", {key: token_of_flowauth(signing_key)})
    site.put_dag("unnamed", A_DAG.format(names={key: None}, dag_id="unnamed"))
    site.wait_for_checks("unnamed")
    return key


@pytest.mark.parametrize("width", [360, 1920])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_can_read_it(site, visit, one, hostile, unnamed, theme, width):
    """No sideways scrolling, no script of a name's, and nothing that axe-core calls serious."""
    page = look(site, visit, [one, *hostile, unnamed], theme, width)
    note = "name of the token is not known yet"
    expect(open_row(page, unnamed).get_by_text(note)).to_be_visible()
    expect(open_row(page, one).get_by_text(note)).to_be_hidden()


def describe_dags(now):
    """Return a DAG in each condition, as the API has it."""
    checked = {
        "schedule": "*/5 * * * *",
        "checked_at": now - timedelta(minutes=1),
        "deadline_at": now + timedelta(minutes=10),
        "next_check_at": now + timedelta(minutes=4),
    }
    differences = {
        Condition.OK: {"schedule": 90.0},
        Condition.EMPTY: {"token_count": 0},
        Condition.NEW: {"checked_at": None, "deadline_at": None, "schedule": None},
        Condition.FAILED: {"failure": Event(now, "unavailable", message="No response.")},
        Condition.MISCONFIGURED: {"configuration_errors": ["Entry 2 is invalid. Correct it."]},
        Condition.LATE: {"deadline_at": now - timedelta(hours=1)},
        Condition.PAUSED: {
            "is_paused": True,
            "next_check_at": None,
            "configuration_errors": ["Entry 3 is invalid. Correct it."],
        },
        Condition.MISSING: {"exists": False, "next_check_at": None},
        Condition.BROKEN: {"has_import_error": True, "next_check_at": None, "checked_at": None},
    }
    dags = [
        RotationDagStatus(f"dag_{condition}", **{**checked, **difference})
        for condition, difference in differences.items()
    ]
    assessed = [render_dag(assess_dag(dag, now)) for dag in dags]
    assert [dag["condition"] for dag in assessed] == [*Condition]
    return [{**dag, "url": f"dags/{dag['dag_id']}"} for dag in assessed]


@pytest.mark.parametrize(("theme", "width"), [("light", 1920), ("dark", 360), ("light", 800)])
def test_all_can_read_the_condition_of_a_dag(site, visit, one, theme, width):
    """What the API says of it; an error in a list of tokens is shown once."""
    answer = site.overview()
    answer["dags"] = describe_dags(datetime.now(timezone.utc))

    def serve(page):
        page.route("**/api/tokens", lambda route: route.fulfill(json=answer))

    page = look(site, visit, [one], theme, width, before=serve, picture="conditions")
    lines = page.locator(".rotation-dag")
    expect(lines).to_have_count(len(answer["dags"]))
    for dag in answer["dags"]:
        line = lines.filter(has=page.get_by_role("link", name=dag["dag_id"], exact=True))
        expect(line).to_have_attribute("data-severity", dag["severity"])
        words = {
            "empty": "No tokens are managed",
            "new": "First check pending.",
            "paused": "Paused: tokens are not being renewed. Unpause to resume.",
        }.get(dag["condition"])
        expect(line).to_contain_text(words or dag["hint"])
        expect(line).to_contain_text(words or dag["condition"], ignore_case=True)
    expect(lines.last).to_contain_text("OK")
    expect(page.locator("#notices li")).to_have_text(["Entry 3 is invalid. Correct it."])


@pytest.mark.parametrize(("theme", "width"), [("light", 1920), ("dark", 360)])
def test_all_can_read_how_to_begin(site, visit, theme, width):
    """The same where there is no token yet: what that Airflow answered is answered again."""

    def serve(page):
        page.route("**/api/tokens", lambda route: route.fulfill(json=site.first_overview))

    look(site, visit, [], theme, width, before=serve)


@pytest.mark.parametrize(("theme", "width"), [("light", 360), ("dark", 1920)])
def test_all_can_read_two_hundred(site, visit, one, theme, width):
    """The same of as many, for which what Airflow says of one token is said two hundred times."""
    answer = site.overview()
    [token] = [token for token in answer["tokens"] if token["name"] == one]
    names = [f"TEAM_{number}" for number in range(200)]
    answer["tokens"] = [{**token, "name": name, "variable": name} for name in names]

    def serve(page):
        page.route("**/api/tokens", lambda route: route.fulfill(json=answer))

    look(site, visit, names, theme, width, before=serve)


def look(site, visit, names, theme, width, before=lambda page: None, picture=None):
    """Open the page so, for one question, and check all that may be wrong to the eye."""
    viewport = {"width": width, "height": HEIGHT}
    visitor = visit("admin", color_scheme=theme, viewport=viewport)
    before(visitor.page)
    page = visitor.open(site.page)
    headings = page.get_by_role("heading", level=3)
    if names:
        expect(headings.nth(len(names) - 1)).to_be_attached()
        assert set(headings.all_text_contents()) >= set(map(remove_control_characters, names))
    else:
        expect(page.get_by_role("heading", name="Add the first token")).to_be_visible()
    calls = [asked for asked in visitor.asked if "/api/" in asked[1]]
    assert calls == [("GET", f"{site.page}api/tokens")]
    expect(page.locator("html")).to_have_attribute("data-theme", theme)
    keep_picture(page, f"{picture or len(names)}-{theme}-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "FlowAPI tokens"
    found = Axe().run(page, {"exclude": [[".row:nth-child(n + 20)"]]}).response["violations"]
    serious = [it for it in found if it["impact"] in ("serious", "critical")]
    assert serious == []
    assert {urlsplit(address)[:2] for _, address in visitor.asked} == {urlsplit(site.page)[:2]}
    return page
