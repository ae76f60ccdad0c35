"""Who may see the page and renew, and who may not; all of it behind a proxy, below a path."""

from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import expect
from prometheus_client.parser import text_string_to_metric_families

from demo.parts import wait_until
from tests.e2e.search import parts_of
from tests.page.browsing import by_navigation, renew, renew_button, row
from tests.page.proxy import page_of, serving

HEADER = {"X-Requested-With": "flowauth-rotator"}
DAG = "access"
RENEWAL = "flowauth-rotator/api/tokens/ACCESS_TOKEN/renew"
CODE = f"""
from flowauth_rotator.provider import ManagedToken, rotation_dag  # Airflow

dag = rotation_dag([ManagedToken("ACCESS_TOKEN")], dag_id="{DAG}")
"""


@pytest.fixture(scope="module", autouse=True)
def token(site, issuer):
    """The token ACCESS of a day, and its DAG."""
    site.home.load("variables", {"ACCESS_TOKEN": issuer.mint("ACCESS", lifetime_minutes=1440)})
    site.put_dag(DAG, CODE)
    site.wait_for_checks(DAG)


def test_a_stranger_signs_in_and_comes_to_the_page(site, visit):
    """The page leads to the form, and the form leads back to the page."""
    stranger = visit()
    stranger.page.goto(site.page)
    stranger.page.wait_for_url("**/login/**" if site.two else "**/auth/login**")
    site.sign_in(stranger.page, "admin")
    stranger.page.wait_for_url(site.page)
    expect(row(stranger.page, "ACCESS")).to_be_visible()


def test_an_ended_session_shows_the_way_to_sign_in(site, visit):
    """A click after the session has ended; the way to sign in again is on the page."""
    visitor = visit("admin")
    page = visitor.open(site.page)
    page.wait_for_load_state("networkidle")  # an answer under way may bring the cookies back
    visitor.context.clear_cookies()
    renew(page, "ACCESS")
    expect(row(page, "ACCESS").get_by_role("alert")).to_contain_text("Sign in to Airflow.")
    page.get_by_role("link", name="Sign in again").click()
    page.wait_for_url("**/login**")


def test_the_runbooks_are_for_signed_in_users(site):
    """Others are led to the form; a name that is not known is 404."""
    path = "flowauth-rotator/runbooks/FlowAuthTokenExpired"
    answer = site.call("admin", "GET", path)
    assert answer.status_code == 200
    assert "<h1>FlowAuthTokenExpired</h1>" in answer.text
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert site.call("admin", "GET", "flowauth-rotator/runbooks/Unknown").status_code == 404
    stranger = site.call(None, "GET", path)
    assert stranger.status_code in (302, 303)
    assert "login" in stranger.headers["Location"]
    assert "runbooks" in stranger.headers["Location"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "api/tokens"),
        ("POST", "api/tokens/ACCESS_TOKEN/renew"),
        ("GET", "api/check"),
        ("GET", "metrics"),
    ],
)
def test_the_api_tells_a_stranger_to_sign_in(site, method, path):
    """With 401 and no redirect."""
    answer = site.call(None, method, f"flowauth-rotator/{path}", headers=HEADER)
    assert (answer.status_code, answer.json()["code"]) == (401, 401)
    assert site.renewals(DAG) == []


@pytest.mark.parametrize(
    "credentials",
    [
        {"headers": {"Authorization": "Bearer scrape-0123456789abcdef"}},
        {"headers": {"Authorization": "Bearer a.b.c"}},
        {"headers": {"Authorization": "Bearer "}},
        {"headers": {"Authorization": "Basic YWRtaW46d3Jvbmc="}},
        {"headers": {"Authorization": "Digest x"}},
        {"headers": {}, "cookies": {"_token": "a.b.c", "session": "a.b.c"}},
    ],
    ids=["another secret", "another JWT", "nothing", "password", "digest", "cookie"],
)
def test_the_api_tells_who_sends_invalid_credentials_to_sign_in(site, credentials):
    """With 401 on every path: 403 is for a user who lacks a permission."""
    headers = HEADER | credentials["headers"]
    for method, path in (
        *(("GET", f"flowauth-rotator/{name}") for name in ("api/tokens", "api/check", "metrics")),
        ("POST", RENEWAL),
    ):
        response = requests.request(
            method,
            f"{site.url}/{path}",
            headers=headers,
            cookies=credentials.get("cookies"),
            allow_redirects=False,
            timeout=60,
        )
        assert (response.status_code, response.json()["code"]) == (401, 401), path
        assert "Sign in" in response.json()["message"]
    assert site.renewals(DAG) == []


def test_who_may_not_read_variables_sees_no_token(site, visit):
    """The page and the API name the permission that is missing."""
    page = visit("clerk").open(site.page)
    expect(page.locator("#error-banner")).to_contain_text(
        "not have the permission to read Variables"
    )
    expect(row(page, "ACCESS")).to_have_count(0)
    asked = [("GET", "api/tokens"), ("GET", "api/check"), ("GET", "metrics"), ("POST", RENEWAL)]
    for method, path in asked:
        path = path if path == RENEWAL else f"flowauth-rotator/{path}"
        answer = site.call("clerk", method, path, headers=HEADER)
        assert answer.status_code == 403
        assert "permission to read Variables" in answer.json()["message"]
    assert site.renewals(DAG) == []


def test_a_user_who_may_not_start_the_dag_sees_and_does_not_renew(site, visit):
    """The button is disabled, and the API refuses too; both name the permission."""
    page = by_navigation(site, visit("reader"))
    missing = f"You do not have the permission to create DAG runs of {DAG}."
    expect(renew_button(page, "ACCESS")).to_have_attribute("aria-disabled", "true")
    expect(row(page, "ACCESS")).to_contain_text(missing)
    answer = site.ask_to_renew("reader", "ACCESS_TOKEN")
    assert answer.status_code == 403
    assert missing in answer.json()["message"]
    assert site.renewals(DAG) == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Requested-With": "XMLHttpRequest"},
        HEADER | {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"},
        HEADER | {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    ],
    ids=["no header", "another header", "cross-site", "same-site"],
)
def test_what_another_site_may_have_sent_begins_nothing(site, headers):
    """403, in a sentence."""
    answer = site.ask_to_renew("admin", "ACCESS_TOKEN", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["message"]
    assert site.renewals(DAG) == []


def is_of_the_form(response):
    return response.request.is_navigation_request() and response.request.method == "POST"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_of_another_origin_begins_nothing(site, visit, host):
    """Neither by a form, nor by a script, nor from a frame; the person is signed in meanwhile."""
    attack = f"""<!doctype html><title>elsewhere</title>
        <form method="post" action="{site.url}/{RENEWAL}" target="answer"></form>
        <iframe name="answer"></iframe><iframe id="page" src="{site.page}"></iframe>
        <script>
        document.forms[0].submit();
        const asked = {{method: "POST", credentials: "include", body: "{{}}"}};
        const headers = {{"X-Requested-With": "flowauth-rotator"}};
        Promise.allSettled([
          fetch("{site.url}/{RENEWAL}", {{...asked, mode: "no-cors"}}),
          fetch("{site.url}/{RENEWAL}", {{...asked, headers}}),
        ]).then((done) => document.title = done.map((it) => it.status).join());
        </script>"""
    visitor = visit("admin")
    with serving(page_of(attack)) as port:
        with visitor.page.expect_response(is_of_the_form) as answered:
            visitor.page.goto(f"http://{host}:{port}/")
        assert answered.value.status in (401, 403)
        expect(visitor.page).to_have_title("fulfilled,rejected")
        framed = visitor.page.frame_locator("#page")
        expect(framed.get_by_role("heading", name="FlowAPI tokens")).to_have_count(0)
    assert site.renewals(DAG) == []
    visitor.complaints.clear()  # the browser has kept it from all that


def test_a_renewal_by_the_page_below_a_path(site, visit):
    """All requests go below the path, and all links of the page do."""
    visitor = visit("admin")
    page = by_navigation(site, visitor)
    expect(row(page, "ACCESS")).to_be_visible()
    links = [link.get_attribute("href") for link in page.locator("a[href]:visible").all()]
    assert links
    elsewhere = [link for link in links if not link.startswith("#")]
    assert [link for link in elsewhere if not urlsplit(link).path.startswith("/team/a/")] == []
    renew(page, "ACCESS")
    expect(page.locator("#announcement")).to_contain_text("ACCESS was renewed.")
    asked = [address for _, address in visitor.asked if address.startswith("http")]
    assert [it for it in asked if not urlsplit(it).path.startswith("/team/a")] == []


def test_a_client_renews_by_name(site, issuer):
    """A program of somebody's: 202 with the run, the same run until that has ended, and 4xx."""
    before = len(issuer.rows("ACCESS"))
    asked = [site.ask_to_renew("colleague", name) for name in ("ACCESS", "ACCESS_TOKEN")]
    assert [answer.status_code for answer in asked] == [202, 202]
    first, second = (answer.json()["token"]["run"] for answer in asked)
    assert first["run_id"] == second["run_id"]
    assert first["active"] is True
    assert site.ask_to_renew("colleague", "ANOTHER").status_code == 404
    for body in ([], {"lifetime_minutes": 0}, {"expires_at": "soon"}, {"unknown": 1}):
        answer = site.ask_to_renew("colleague", "ACCESS", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, 400)
    wait_until(lambda: not site.tokens()["ACCESS"]["run"]["active"], "the run ends")
    assert site.tokens()["ACCESS"]["run"]["state"] == "success"
    assert len(issuer.rows("ACCESS")) == before + 1


def test_metrics_are_for_who_may_read_variables_and_for_the_scraper(site, scrape_token):
    """What they say is read by Prometheus's own parser, and tells of the token by its name."""
    bearer = {"Authorization": f"Bearer {scrape_token}"}
    wrong = {"Authorization": f"Bearer {scrape_token[:-1]}"}
    path = "flowauth-rotator/metrics"
    assert site.call(None, "GET", path, headers=wrong).status_code == 401
    for answer in (site.call("reader", "GET", path), site.call(None, "GET", path, headers=bearer)):
        assert answer.status_code == 200
        families = {it.name: it.samples for it in text_string_to_metric_families(answer.text)}
        expiries = {
            it.labels["name"]: it.value
            for it in families["flowauth_rotator_token_expiration_timestamp_seconds"]
        }
        assert expiries["ACCESS"] == site.tokens()["ACCESS"]["expires_at"]


def test_the_page_and_its_api_send_strict_headers(site):
    """No script of another origin, no frame of another site, nothing kept, no type guessed."""
    for path in ("", "api/tokens", "static/page.js"):
        headers = site.call("admin", "GET", f"flowauth-rotator/{path}").headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'self'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"]


def test_no_part_of_a_token_was_shown(site, issuer):
    """Not in any answer to a browser or a client, in the database, or in a log."""
    assert site.leaks(*parts_of(*issuer.signer.signed), issuer.password) == set()
