"""The rows of the page: order, filter, details and renewals, with answers made for it."""

import re
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from demo.parts import WAIT_LIMIT
from tests.page.board import DAY, HOUR, Board, build_dag, build_event, build_run, build_token
from tests.page.browsing import keep_picture, open_row, pick, rehearse, renew, renew_button, row

MINUTE = 60
SOON = 60_000  # ms: nothing but the browser has to respond
REFUSAL = "The lifetime of 2880 min exceeds the maximum permitted, 1440 min."


@pytest.fixture
def show(browser):
    """Open the page with these tokens; nobody complains of anything."""
    boards = []
    expect.set_options(timeout=SOON)

    def show(*tokens, fragment="", options=None, **fields):
        context = browser.new_context(
            **{"viewport": {"width": 1440, "height": 900}} | (options or {})
        )
        context.set_default_timeout(SOON)
        boards.append((context, Board(context, *tokens, **fields)))
        boards[-1][1].open(fragment)
        return boards[-1][1]

    yield show
    expect.set_options(timeout=WAIT_LIMIT * 1000)
    complaints = [board.complaints for _, board in boards if board.complaints]
    for context, _ in boards:
        context.close()
    assert complaints == []


def build_dozen():
    """Return twelve tokens, five of which need attention."""
    message = "Expires in 37 min (2026-11-29 13:00 UTC); refused: The role is not assigned"
    error = {
        "outcome": "refused",
        "message": "The role is not assigned.",
        "hint": "Ask a FlowAuth administrator to assign it.",
        "at": round(time.time()) - 300,
        "url": "dags/rotation/runs/9",
    }
    failed = [
        build_event("refused", "critical", at=round(time.time()) - 300 * number)
        for number in range(1, 4)
    ]
    return [
        *(build_token(f"WELL_{number}", (9 + number) * HOUR) for number in range(7)),
        build_token("LOST", severity="unknown", expires_at=None, issued_at=None, state="unknown"),
        build_token("SLOW", 5 * HOUR, "warning"),
        build_token("LATE", 3 * HOUR, "warning"),
        build_token("GONE", -HOUR, "critical", state="expired"),
        build_token(
            "ALERTS",
            37 * MINUTE + 30,
            "critical",
            state="refused",
            message=message,
            hint=error["hint"],
            error=error,
            rotations=failed,
            alert="FlowAuthTokenExpiryCritical",
            runbook={"text": "FlowAuthTokenExpiryCritical", "url": "flowauth-rotator/runbooks/x"},
        ),
    ]


def test_the_most_urgent_comes_first_and_is_on_the_first_screen(show):
    """The header names the token that expires next; rows without trouble are one line each."""
    board = show(*build_dozen())
    page = board.page
    assert board.names()[:6] == ["GONE", "ALERTS", "LATE", "SLOW", "LOST", "WELL_0"]
    for name in board.names()[:5]:
        box = row(page, name).bounding_box()
        assert box["y"] + box["height"] <= 900, name
    expect(page.locator("#summary")).to_contain_text("5 of 12 tokens need attention.")
    expect(page.locator("#next-expiry")).to_contain_text(re.compile(r"ALERTS\s+in 37\smin"))
    assert row(page, "WELL_0").bounding_box()["height"] == pytest.approx(53, abs=3)


def test_a_row_in_trouble_says_why_since_when_and_what_to_do(show):
    """Without being opened, each once."""
    board = show(*build_dozen())
    alerts = row(board.page, "ALERTS")
    for words in (
        "Refused by the issuer 5 min ago. Failing for 15 min, 3 attempts.",
        "The role is not assigned.",
        "What to do: Ask a FlowAuth administrator to assign it.",
        "37 min left",
        "rotation",
    ):
        expect(alerts).to_contain_text(words)
    assert alerts.inner_text().count("The role is not assigned") == 1
    expect(alerts.get_by_role("link", name="Runbook: FlowAuth")).to_have_attribute(
        "href", "http://page.test/flowauth-rotator/runbooks/x"
    )
    expect(alerts.get_by_role("link", name="Log of the failure")).to_have_attribute(
        "href", "http://page.test/dags/rotation/runs/9"
    )


def test_a_token_that_needs_attention_is_not_called_healthy(show):
    """Though nothing is wrong with the token itself, as if its DAG is paused."""
    paused = build_token("ONE", severity="warning", state="healthy", reasons=["my_dag is paused"])
    board = show(paused, build_token("TWO"))
    expect(row(board.page, "ONE").locator(".pill")).to_have_text("Warning")
    expect(row(board.page, "ONE")).to_contain_text("my_dag is paused.")
    expect(row(board.page, "TWO").locator(".pill")).to_have_text("Healthy")


def test_a_row_opens_and_closes(show):
    """With its button, by mouse and keyboard; its details exist only then."""
    board = show(build_token("ONE", rotations=[build_event()]), build_token("TWO"))
    page = board.page
    toggle = page.get_by_role("button", name="ONE", exact=True)
    expect(toggle).to_have_attribute("aria-expanded", "false")
    assert page.locator(".details").count() == 0
    toggle.press("Enter")
    expect(toggle).to_have_attribute("aria-expanded", "true")
    expect(row(page, "ONE")).to_contain_text("FlowAuth_Token_ONE")
    toggle.press("ArrowUp")
    expect(page.get_by_role("button", name="TWO", exact=True)).not_to_be_focused()
    toggle.press("ArrowDown")
    expect(page.get_by_role("button", name="TWO", exact=True)).to_be_focused()
    row(page, "ONE").locator(".head").click(position={"x": 600, "y": 20})
    expect(toggle).to_have_attribute("aria-expanded", "false")
    expect(page.locator(".details")).to_be_hidden()


def test_the_history_says_when_what_and_who(show):
    """The last 20 rotations, in words, each with its log."""
    now = round(time.time())
    rotations = [
        build_event("adopted", at=now - 2 * HOUR),
        build_event("unavailable", "warning", at=now - 3 * HOUR),
        build_event(at=now - DAY, run_id="renew-1", requested_by="ann"),
        *(build_event(at=now - number * DAY) for number in range(2, 19)),
    ]
    dags = [{"dag_id": "daily", "url": "dags/daily"}]
    board = show(build_token("ONE", rotations=rotations, scheduled_dags=dags))
    one = open_row(board.page, "ONE")
    lines = one.locator("tbody tr")
    expect(lines).to_have_count(20)
    expect(lines.nth(0)).to_contain_text(re.compile(r"2\sh ago.*Newer token found and stored"))
    expect(lines.nth(0)).to_contain_text("Schedule")
    expect(lines.nth(1)).to_contain_text("The issuer did not respond")
    expect(lines.nth(2)).to_contain_text("ann")
    expect(lines.nth(2).get_by_role("link")).to_have_attribute(
        "href", "http://page.test/dags/rotation/runs/1"
    )
    expect(one.get_by_role("link", name="daily")).to_be_visible()


def test_the_service_name_can_be_copied(show):
    """Also without `navigator.clipboard`, which a page without HTTPS does not have."""
    board = show(build_token("ONE"))
    one = open_row(board.page, "ONE")
    one.get_by_role("button", name="Copy the service name").click()
    expect(one.get_by_role("button", name="Copied the service name")).to_be_visible()
    text = board.page.locator("#filter-text")
    board.page.evaluate("document.getElementById('toolbar').hidden = false")
    text.focus()
    text.press("Control+V")
    expect(text).to_have_value("FlowAuth_Token_ONE")


def test_rows_are_filtered_and_sorted(show):
    """By text, severity and DAG; the tab keeps it, and an empty result says so."""
    tokens = build_dozen()
    tokens[0] |= {"dag_id": "other", "dag_ids": ["other", "rotation"]}
    board = show(*tokens, dags=[build_dag(), build_dag("other")])
    page = board.page
    page.get_by_role("button", name="Needs attention 5").click()
    assert board.names() == ["GONE", "ALERTS", "LATE", "SLOW", "LOST"]
    page.get_by_role("button", name="OK 7").click()
    assert len(board.names()) == 7
    page.get_by_role("button", name="All 12").click()
    page.locator("#filter-dag").select_option("other")
    assert board.names() == ["WELL_0"]
    expect(row(page, "WELL_0")).to_contain_text("2 DAGs: other, rotation")
    page.locator("#filter-dag").select_option("")
    page.locator("#sort").select_option("By name")
    assert board.names() == sorted(board.names())
    page.locator("#sort").select_option("By expiry")
    assert board.names()[:3] == ["LOST", "GONE", "ALERTS"]
    page.get_by_role("searchbox").fill("refused")
    assert board.names() == ["ALERTS"]
    page.reload()
    expect(page.get_by_role("searchbox")).to_have_value("refused")
    expect(row(page, "ALERTS")).to_be_visible()
    assert board.names() == ["ALERTS"]
    page.get_by_role("searchbox").fill("nothing of this name")
    expect(page.get_by_text("No token matches the filter.")).to_be_visible()
    page.get_by_role("button", name="Clear the filter").click()
    assert len(board.names()) == 12


def test_a_renewal_shows_its_step_and_its_success_stays(show):
    """With the new expiry, also for a row that has moved; until somebody dismisses it."""
    board = show(*build_dozen())
    page = board.page
    renew(page, "ALERTS")
    current = row(page, "ALERTS").locator("[aria-current=step]")
    for step, label in {"queued": "Queued", "survey": "Check", "rotate": "Renew"}.items():
        board.active_run("ALERTS_TOKEN")["step"] = step
        board.reload()
        expect(current).to_have_text(label)
    board.end("ALERTS_TOKEN")
    words = re.compile(r"Renewed: expires \w{3} \d\d:\d\d, 23\sh \d+\smin later than before\.")
    expect(page.locator("#announcement")).to_contain_text("ALERTS was renewed.")
    expect(page.locator("#note")).to_contain_text(words)
    assert board.names()[-1] == "ALERTS"
    board.reload()
    expect(row(page, "ALERTS")).to_contain_text(words)
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator("#note")).to_be_hidden()


def test_a_refused_request_is_not_the_state_of_a_healthy_token(show):
    """It is an event of the request, in the issuer's words; the token stays OK."""
    board = show(build_token("ONE", renewal=build_token("")["renewal"]))
    page = board.page
    renew(page, "ONE", minutes=2880)
    board.end("ONE_TOKEN", "refused", message=REFUSAL, hint="Request at most 1440 minutes.")
    one = row(page, "ONE")
    expect(one.locator(".event")).to_contain_text(f"Your request was refused: {REFUSAL}")
    expect(one.locator(".event")).to_contain_text("Request at most 1440 minutes.")
    expect(one).to_have_attribute("data-severity", "ok")
    expect(one.locator(".failure")).to_be_hidden()
    expect(page.locator("#summary")).to_contain_text("1 token, which is OK.")


FINDINGS = (
    "Renewal due at 2026-11-29 12:00 UTC.",
    "Variable ONE_TOKEN can be written.",
    "The issuer accepts a renewal of ONE.",
)


def test_a_rehearsal_shows_its_steps_and_renews_nothing(show):
    """With the result of each; the lifetime of the form has no part in it."""
    board = show(build_token("ONE"), build_token("TWO"))
    page = board.page
    rehearse(page, "ONE")
    one = row(page, "ONE")
    expect(one.locator(".progress")).to_contain_text("Rehearsing the renewal.")
    expect(one.locator(".steps li")).to_have_text(["Queued", "Check", "Rehearse", "Report"])
    expect(renew_button(page, "ONE")).to_have_attribute("aria-disabled", "true")
    message = "The renewal due at 2026-11-29 12:00 UTC will work."
    board.end_rehearsal("ONE_TOKEN", message, *FINDINGS)
    event = one.locator(".event")
    expect(event).to_have_attribute("data-result", "success")
    expect(event).to_contain_text(re.compile("The renewal due at .* UTC will work."))
    expect(event.locator("[data-result=success]")).to_have_count(3)
    expect(event.locator("li").last).to_have_text("Works: The issuer accepts a renewal of ONE.")
    expect(page.locator("#announcement")).to_contain_text("ONE was rehearsed.")
    expect(one.locator(".details")).to_contain_text("just now, succeeded")
    expect(one).to_have_attribute("data-severity", "ok")
    keep_picture(page, "rehearsal")
    assert (board.rehearsed, board.posted) == (["ONE_TOKEN"], [])


def test_a_rehearsal_that_fails_says_at_which_step(show):
    """The token has a warning with the date; its renewal can be requested all the same."""
    board = show(build_token("ONE"), build_token("TWO"))
    page = board.page
    rehearse(page, "ONE")
    hint = "Correct `login` and `password`."
    board.end_rehearsal(
        "ONE_TOKEN",
        "Sign-in of 'flowbot' failed: Incorrect username or password.",
        *FINDINGS[:2],
        outcome="refused",
        hint=hint,
    )
    event = row(page, "ONE").locator(".event")
    expect(event).to_contain_text("Your rehearsal has found a problem.")
    expect(event.locator("li")).to_have_count(3)
    expect(event.locator("[data-result=failure]")).to_have_text(
        "Fails: Sign-in of 'flowbot' failed: Incorrect username or password."
    )
    words = "ONE was rehearsed, and its renewal would fail."
    expect(page.locator("#announcement")).to_contain_text(words)
    expect(row(page, "ONE")).to_contain_text(re.compile("The renewal due on .* will fail: refused"))
    assert row(page, "ONE").inner_text().count(hint) == 1
    expect(renew_button(page, "ONE")).not_to_have_attribute("aria-disabled", "true")
    found = Axe().run(page).response["violations"]
    assert [it for it in found if it["impact"] in ("serious", "critical")] == []
    keep_picture(page, "rehearsal-failed")


def test_a_rehearsal_that_left_no_result_says_so(show):
    run = build_run(is_rehearsal=True, active=False, state="failed", message="No report.")
    board = show(build_token("ONE", run=run), build_token("TWO"))
    one = open_row(board.page, "ONE")
    expect(one.locator(".event")).to_contain_text("The rehearsal of admin failed: No report.")


def test_the_request_of_another_user_names_the_user(show):
    now = round(time.time())
    run = build_run(active=False, state="failed", requested_by="ann", requested_at=now - 60)
    refused = build_event("refused", "warning", message=REFUSAL, at=now - 50, run_id=run["run_id"])
    board = show(build_token("ONE", run=run, rotations=[refused]), build_token("TWO"))
    expect(row(board.page, "ONE")).to_contain_text(f"The request of ann was refused: {REFUSAL}")


def test_the_picker_is_bounded_by_what_is_known(show):
    """By the least and the most that the issuer grants, and by what the token has left."""
    renewal = build_token("")["renewal"] | {"shortest_minutes": 400, "longest_minutes": 1440}
    board = show(
        build_token("KNOWN", HOUR, renewal=renewal), build_token("NEW", HOUR), build_token("TOO")
    )
    page = board.page
    open_row(page, "KNOWN")
    picker = page.get_by_role("combobox", name="Lifetime KNOWN")
    expect(picker.locator("option")).to_have_text(["maximum (1 d)", "12 h", "other…"])
    pick(page, "KNOWN", "other…")
    minutes = page.get_by_role("textbox", name="Minutes KNOWN")
    for value in ("99999", "399", "0", "12x", ""):
        minutes.fill(value)
        minutes.press("Enter")
        expect(row(page, "KNOWN").get_by_role("alert")).to_contain_text("1440 minutes")
    open_row(page, "NEW")
    picker = page.get_by_role("combobox", name="Lifetime NEW")
    expect(picker.locator("option")).to_have_text(
        ["maximum", "1 h", "6 h", "12 h", "1 d", "other…"]
    )
    assert board.posted == []


def test_several_are_renewed_two_at_a_time(show):
    """After a confirmation that counts them; those that cannot be renewed are left out."""
    impossible = build_token("")["renewal"] | {"possible": False, "why_not": "The DAG is paused."}
    tokens = build_dozen()
    tokens[8] |= {"renewal": impossible}  # SLOW
    board = show(*tokens)
    page = board.page
    page.get_by_role("button", name="Renew several").click()
    page.get_by_role("button", name="All that need attention").click()
    expect(page.locator("#selected-count")).to_have_text("4 selected")
    page.get_by_role("checkbox", name="Select LOST").uncheck()
    expect(page.get_by_role("checkbox", name="Select SLOW")).to_be_disabled()
    page.get_by_role("button", name="Renew 3 tokens …").click()
    expect(page.get_by_text("Renew 3 tokens?")).to_be_visible()
    assert board.posted == []
    page.get_by_role("button", name="Renew 3 tokens", exact=True).click()
    expect(page.locator("#batch-text")).to_contain_text("Renewing GONE and ALERTS.")
    board.active_run("ALERTS_TOKEN")
    assert board.posted == ["GONE_TOKEN", "ALERTS_TOKEN"]
    board.end("GONE_TOKEN")
    expect(page.locator("#batch-text")).to_contain_text("1 of 3 tokens renewed.")
    expect(page.locator("#batch-text")).to_contain_text("Renewing ALERTS and LATE.")
    board.end("ALERTS_TOKEN", "refused", message=REFUSAL)
    board.end("LATE_TOKEN")
    expect(page.locator("#batch-text")).to_have_text("Finished: 2 of 3 tokens renewed, 1 failed.")
    expect(page.locator("#batch-results li")).to_contain_text(
        ["LATE Renewed", f"ALERTS Your request was refused: {REFUSAL}", "GONE Renewed"]
    )
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#batch")).to_be_hidden()
    assert board.posted == ["GONE_TOKEN", "ALERTS_TOKEN", "LATE_TOKEN"]


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("Europe/Zurich", "Mon 1 Jan 2035, 13:00 CET"),
        ("UTC", "Mon 1 Jan 2035, 12:00 UTC"),
        ("America/New_York", "Mon 1 Jan 2035, 07:00 EST"),
        ("Asia/Kathmandu", "Mon 1 Jan 2035, 17:45 GMT+5:45"),
        (None, "Mon 1 Jan 2035, 21:00 GMT+9"),
        ("No/Such_Zone", "Mon 1 Jan 2035, 21:00 GMT+9"),
    ],
)
def test_times_are_in_the_zone_of_airflow(show, zone, shown):
    """Or, without one, in that of the browser; the times of messages, too."""
    noon = 2051265600  # 2035-01-01 12:00 UTC
    board = show(
        build_token("ONE", expires_at=noon, forecast="The check at 2035-01-01 12:00 UTC renews."),
        time_zone=zone,
        options={"timezone_id": "Asia/Tokyo", "locale": "de-CH"},
    )
    one = open_row(board.page, "ONE")
    expect(one.get_by_text(shown, exact=True)).to_be_visible()
    expect(one).to_contain_text(f"The check at {shown} renews.")
    assert ("UTC" in one.inner_text()) == (zone == "UTC")


def test_the_address_leads_to_a_row_whenever_it_changes(show):
    """The row is opened, also if the filter hides it; an unknown Variable is a message."""
    board = show(*(build_token(f"T_{number}") for number in range(60)), fragment="#T_50_TOKEN")
    page = board.page
    heading = page.get_by_role("heading", name="T_50", exact=True)
    expect(heading).to_be_in_viewport()
    page.set_viewport_size({"width": 360, "height": 240})  # of an open row one sees the upper part
    for variable in ("T_40", "T_20", "T_50"):
        page.evaluate(f"location.hash = '{variable}_TOKEN'")
        expect(page.get_by_role("heading", name=variable, exact=True)).to_be_in_viewport()
    page.set_viewport_size({"width": 1280, "height": 720})
    expect(heading.get_by_role("button")).to_be_focused()
    expect(heading.get_by_role("button")).to_have_attribute("aria-expanded", "true")
    page.get_by_role("searchbox").fill("T_1")
    page.evaluate("location.hash = 'T_30_TOKEN'")
    expect(page.get_by_role("heading", name="T_30", exact=True)).to_be_in_viewport()
    page.evaluate("location.hash = '<b>'")
    expect(page.locator("#note")).to_contain_text("There is no token in the Variable")
    expect(page.locator("#note")).to_contain_text("<b>")
    page.evaluate("location.hash = 'T_3_TOKEN'")
    expect(page.locator("#note")).to_be_hidden()


def test_the_conditions_of_dags_come_before_those_that_are_ok(show):
    """In words; many that are OK are folded."""
    dags = [
        *(build_dag(f"ok_{number}") for number in range(6)),
        build_dag("new", condition="new", severity="warning", checked_at=None),
        build_dag("idle", condition="paused", severity="critical", next_check_at=None),
        build_dag("slow", condition="late", severity="critical", next_check_at=time.time() - 90),
    ]
    page = show(build_token("ONE"), dags=dags).page
    expect(page.get_by_text("6 rotation DAGs are OK")).to_be_visible()
    lines = page.locator("#rotation-dag-list > li")
    expect(lines).to_have_count(3)
    expect(lines.nth(2)).to_contain_text("next check due")
    expect(lines.nth(0)).to_contain_text("First check pending.")
    expect(lines.nth(1)).to_contain_text("Paused: tokens are not being renewed. Unpause to resume.")


def test_an_outage_stays_in_sight(show):
    """However far down the page one has scrolled; it goes when Airflow responds again."""
    board = show(*(build_token(f"T_{number}") for number in range(60)))
    page = board.page
    page.route("**/api/tokens", lambda route: route.fulfill(status=502, body="Bad gateway"))
    board.reload()
    page.evaluate("scrollTo(0, 2000)")
    expect(page.locator("#error-banner")).to_contain_text("Airflow does not respond.")
    expect(page.locator("#error-banner")).to_be_in_viewport()
    page.unroute("**/api/tokens")
    page.evaluate("scrollTo(0, 0)")
    board.reload()
    expect(page.locator("#error-banner")).to_be_hidden()
    board.complaints = [each for each in board.complaints if "502" not in each]


@pytest.mark.parametrize("count", [0, 1, 12, 213])
@pytest.mark.parametrize(
    ("theme", "width"), [("light", 360), ("dark", 390), ("light", 1440), ("dark", 1920)]
)
def test_any_number_fits_any_screen(show, count, theme, width):
    """No sideways scrolling, nothing that axe-core calls serious, few elements and tab stops."""
    tokens = build_dozen()[-count:] if count else []
    tokens += [build_token(f"TEAM_{number}", 20 * HOUR) for number in range(count - len(tokens))]
    options = {"color_scheme": theme, "viewport": {"width": width, "height": 900}}
    board = show(*tokens, dags=None if count else [], options=options)
    page = board.page
    expect(page.locator(".row")).to_have_count(count)
    if count:
        open_row(page, tokens[-1]["name"])
    else:
        expect(page.get_by_role("heading", name="Add the first token")).to_be_visible()
    page.wait_for_timeout(50)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("*").count() < 1000 + 20 * count
    focusable = "a[href], button, input, select, summary"
    stops = f"[...document.querySelectorAll('{focusable}')].filter(it => it.tabIndex >= 0"
    assert page.evaluate(f"{stops} && it.checkVisibility()).length") < 100
    found = Axe().run(page, {"exclude": [[".row:nth-child(n + 20)"]]}).response["violations"]
    assert [it for it in found if it["impact"] in ("serious", "critical")] == []


def test_names_are_text(show):
    """Markup, directions and control characters in a name or in a user's name change nothing."""
    name = "<img src=x onerror=\"document.title='owned'\">\u202eabc\x07"
    rotations = [build_event(requested_by=name)]
    fields = {"variable": "HOSTILE", "owner": name, "roles": [name], "rotations": rotations}
    board = show(build_token(name, **fields), build_token("n" * 255, variable="LONG"))
    page = board.page
    shown = "<img src=x onerror=\"document.title='owned'\">abc "
    expect(page.get_by_role("heading", name=shown.strip(), exact=True)).to_be_visible()
    page.locator(".toggle").first.click()
    page.locator(".toggle").last.click()
    expect(page.locator("tbody").first).to_contain_text(shown.strip())
    assert page.title() == "FlowAPI tokens"
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440


def test_nothing_moves_where_that_is_asked_for_and_paper_has_no_buttons(show):
    board = show(build_token("ONE", run=build_run()), options={"reduced_motion": "reduce"})
    open_row(board.page, "ONE")
    spinner = board.page.locator(".spinner")
    expect(spinner).to_have_css("animation-name", "none")
    board.page.emulate_media(media="print", color_scheme="dark")
    expect(renew_button(board.page, "ONE")).to_be_hidden()
    expect(row(board.page, "ONE")).to_be_visible()
