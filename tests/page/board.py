"""The page in a browser without an Airflow: its files, and an API that answers as a test says."""

import itertools
import re
import time
from pathlib import Path

from demo.parts import wait_until
from flowauth_rotator.provider import web

URL = "http://page.test/flowauth-rotator/"
STATIC = Path(web.__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
HOUR = 3600
DAY = 24 * HOUR
RANKS = ("critical", "warning", "unknown", "ok")


def build_event(outcome="rotated", severity="ok", **differences):
    """Return a rotation as the API has it."""
    event = {
        "at": round(time.time()) - HOUR,
        "outcome": outcome,
        "severity": severity,
        "message": "",
        "hint": "",
        "expires_at": None,
        "run_id": "scheduled__1",
        "task_id": "rotate",
        "map_index": 0,
        "url": "dags/rotation/runs/1",
        "requested_by": None,
    }
    return event | differences


def build_run(**differences):
    """Return a run that somebody has started from the page."""
    run = {
        "run_id": "renew-0123456789ab-1",
        "state": "running",
        "active": True,
        "requested_at": round(time.time()),
        "requested_by": "admin",
        "is_rehearsal": False,
        "message": "Renewing.",
        "step": "queued",
        "url": "dags/rotation/runs/renew",
    }
    return run | differences


def build_token(name, left=12 * HOUR, severity="ok", lifetime=DAY, **differences):
    """Return a token as the API has it, with `left` seconds to its expiry."""
    now = round(time.time())
    expires_at = now + left
    token = {
        "name": name,
        "name_is_known": True,
        "former_name": None,
        "variable": f"{name}_TOKEN",
        "dag_id": "rotation",
        "dag_ids": ["rotation"],
        "owner": "flowbot",
        "audience": "TEST_SERVER",
        "roles": ["runner"],
        "scopes": [{"name": "runner", "scopes": ["run"]}],
        "issued_at": expires_at - lifetime,
        "renew_at": expires_at - lifetime // 3,
        "critical_at": expires_at - lifetime // 10,
        "expires_at": expires_at,
        "next_check_at": now + 300,
        "renewal_check_at": expires_at - lifetime // 3 + 60,
        "newest_issued_expires_at": None,
        "rotations": [],
        "last_rehearsal": None,
        "rehearsal_steps": [],
        "service": f"FlowAuth_Token_{name}",
        "alert": None,
        "runbook": None,
        "scheduled_dags": [],
        "state": "healthy" if severity == "ok" else "due",
        "severity": severity,
        "message": "Expires in 12 h (2026-11-29 13:00 UTC)",
        "reasons": [],
        "hint": "",
        "forecast": "The next check leaves the token unchanged.",
        "renewal": {
            "possible": True,
            "why_not": "",
            "way_out": None,
            "usual_minutes": None,
            "shortest_minutes": None,
            "longest_minutes": None,
        },
        "run": None,
        "error": None,
    }
    return token | differences


def build_dag(dag_id="rotation", **differences):
    """Return a rotation DAG as the API has it."""
    now = round(time.time())
    dag = {
        "dag_id": dag_id,
        "schedule": "*/5 * * * *",
        "checked_at": now - 60,
        "next_check_at": now + 240,
        "configuration_errors": [],
        "condition": "ok",
        "severity": "ok",
        "message": "Last check",
        "hint": "",
        "url": f"dags/{dag_id}",
    }
    return dag | differences


class Board:
    """The page in a tab.

    Attributes:
        tokens: what the API has; in its order when it answers.
        posted: the Variables whose renewal was requested, in order.
        rehearsed: the Variables whose rehearsal was requested, in order.
        complaints: the errors of the page.
    """

    def __init__(self, context, *tokens, dags=None, **fields):
        self.tokens, self.fields = list(tokens), fields
        self.dags = [build_dag()] if dags is None else dags
        self.posted, self.rehearsed, self.complaints = [], [], []
        self._numbers = itertools.count(1)
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)
        self.page.route("**/*", self._answer)

    def open(self, fragment=""):
        """Open the page, and wait until it shows the tokens."""
        self.page.goto(URL + fragment)
        self.page.locator("#loading").wait_for(state="hidden")
        return self.page

    def reload(self):
        """Let the page look again now."""
        with self.page.expect_response("**/api/tokens"):
            self.page.get_by_role("button", name="Refresh").click()

    def find(self, variable):
        """The token in a Variable."""
        [token] = [token for token in self.tokens if token["variable"] == variable]
        return token

    def active_run(self, variable):
        """The run that the page has requested, once its request has arrived."""
        token = self.find(variable)

        def is_active():
            self.page.wait_for_timeout(10)  # requests are answered meanwhile
            return token["run"] and token["run"]["active"]

        wait_until(is_active, f"the page requests the renewal of {variable}", interval=0)
        return token["run"]

    def end(self, variable, outcome="rotated", lifetime=DAY, **result):
        """End the active run of a token, with success or with a failure."""
        token, now = self.find(variable), round(time.time())
        is_renewed = outcome == "rotated"
        if is_renewed:
            token |= {"issued_at": now, "expires_at": now + lifetime, "severity": "ok"}
        severity = "ok" if is_renewed else "warning"
        run = self.active_run(variable)
        run |= {"active": False, "state": "success" if is_renewed else "failed", "step": None}
        event = build_event(outcome, severity, at=now, run_id=run["run_id"], requested_by="admin")
        token["rotations"] = [event | {"expires_at": token["expires_at"]} | result]
        self.reload()

    def end_rehearsal(self, variable, message, *steps, outcome="healthy", **result):
        """End the active rehearsal of a token."""
        token, has_failed = self.find(variable), outcome != "healthy"
        run = self.active_run(variable)
        state = "failed" if has_failed else "success"
        run |= {"active": False, "state": state, "step": None, "message": message}
        event = build_event(
            outcome,
            "warning" if has_failed else "ok",
            at=round(time.time()),
            run_id=run["run_id"],
            message=message,
        )
        token |= {"last_rehearsal": event | result, "rehearsal_steps": list(steps)}
        if has_failed:
            reason = f"the renewal due on 2026-11-29 13:00 UTC will fail: {outcome}: {message}"
            token |= {"severity": "warning", "reasons": [reason], "hint": result.get("hint", "")}
        self.reload()

    def names(self):
        """The names of the rows that are shown, from the first to the last."""
        return self.page.locator(".row:not([hidden]) h3").all_text_contents()

    def _hear(self, message):
        if message.type == "error":
            self.complaints.append(message.text)

    def _answer(self, route):
        path = route.request.url.removeprefix(URL).partition("#")[0]
        renewal = re.fullmatch(r"api/tokens/(.+)/renew", path)
        if renewal:
            token = self.find(renewal[1])
            is_rehearsal = route.request.post_data_json.get("dry_run", False)
            (self.rehearsed if is_rehearsal else self.posted).append(token["variable"])
            token["run"] = build_run(
                run_id=f"renew-0123456789ab-{next(self._numbers)}",
                is_rehearsal=is_rehearsal,
                message="Rehearsing the renewal." if is_rehearsal else "Renewing.",
            )
            route.fulfill(status=202, json={"version": 3, "now": time.time(), "token": token})
        elif path == "api/tokens":
            route.fulfill(json=self._document())
        else:
            file = STATIC / (path.removeprefix("static/") or "index.html")
            route.fulfill(
                body=file.read_bytes(),
                content_type=TYPES.get(file.suffix, "text/html"),
                headers={"Content-Security-Policy": POLICY},
            )

    def _document(self):
        def urgency(token):
            return RANKS.index(token["severity"]), token["expires_at"] or 0

        document = {"version": 3, "now": round(time.time()), "time_zone": "UTC"}
        tokens = sorted(self.tokens, key=urgency)
        return document | {"dags": self.dags, "tokens": tokens} | self.fields
