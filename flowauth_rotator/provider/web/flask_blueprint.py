"""The page and its API on Airflow 2, whose web server is a Flask app."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow.api_connexion.exceptions import Unauthenticated
from airflow.api_connexion.security import check_authentication
from airflow.auth.managers.models.resource_details import (
    DagAccessEntity,
    DagDetails,
    VariableDetails,
)
from airflow.models import Log
from airflow.utils.session import create_session
from airflow.www.extensions.init_auth_manager import get_auth_manager
from flask import Blueprint, Response, current_app, jsonify, redirect, request, session, url_for
from flask_appbuilder import BaseView, expose

from flowauth_rotator.monitoring.prometheus import CONTENT_TYPE
from flowauth_rotator.provider.compat import PAGE, conf
from flowauth_rotator.provider.web import api
from flowauth_rotator.provider.web.api import Denied

STATIC = Path(__file__).parent / "static"

blueprint = Blueprint(
    "flowauth_rotator",
    __name__,
    url_prefix="/flowauth-rotator",
    static_folder=str(STATIC),
    static_url_path="/static",
    template_folder=str(Path(__file__).parent / "templates"),
)


class Viewer:
    """Who asks, as the auth manager knows them."""

    @property
    def name(self) -> str:
        """What the audit log calls them."""
        known = get_auth_manager().is_logged_in()
        return str(get_auth_manager().get_user_name()) if known else "anonymous"

    def may_read(self, variable: str | None = None) -> bool:
        """Whether they may read this Variable, or Variables at all."""
        details = VariableDetails(key=variable) if variable is not None else None
        return bool(get_auth_manager().is_authorized_variable(method="GET", details=details))

    def may_renew(self, dag_id: str) -> bool:
        """Whether they may start runs of the DAG."""
        return bool(
            get_auth_manager().is_authorized_dag(
                method="POST",
                access_entity=DagAccessEntity.RUN,
                details=DagDetails(id=dag_id),
            )
        )


class TokensPage(BaseView):  # type: ignore[misc, unused-ignore]
    """The page in the frame of Airflow's own."""

    route_base = f"/{PAGE}"
    default_view = "show"

    @expose("/")  # type: ignore[untyped-decorator, unused-ignore]
    def show(self) -> Any:  # noqa: ANN401 - of Flask
        """The page below Airflow's navigation, or the page alone where it permits no frames."""
        if not get_auth_manager().is_logged_in():
            return redirect(get_auth_manager().get_url_login(next_url=request.url))
        if not conf.getboolean("webserver", "x_frame_enabled", fallback=True):
            return redirect(url_for("flowauth_rotator.page"))
        return self.render_template("flowauth_rotator/frame.html")


@blueprint.get("/")
def page() -> Any:  # noqa: ANN401 - of Flask
    """The page, or the way to sign in."""
    if not _is_known():
        return redirect(get_auth_manager().get_url_login(next_url=request.url))
    return blueprint.send_static_file("index.html")


@blueprint.get("/api/tokens")
def tokens() -> Any:  # noqa: ANN401 - of Flask
    """All that the page shows."""
    return jsonify(api.tokens(_viewer(), _now()))


@blueprint.post("/api/tokens/<path:called>/renew")
def renew(called: str) -> Any:  # noqa: ANN401 - of Flask
    """Start a renewal."""
    api.check_origin(request.headers.get)
    viewer = _viewer()
    body = request.get_json(silent=True)
    if body is None and request.get_data() not in (b"", b"null"):
        raise Denied(400, "The body is no JSON object.")
    extra = json.dumps({"called": called, "body": body if isinstance(body, dict) else None})
    with create_session() as database:
        database.add(Log("flowauth_rotator.renew", owner=viewer.name, extra=extra))
    return jsonify(api.renew(viewer, called, body, _now())), 202


@blueprint.get("/metrics")
def metrics() -> Response:
    """What a scraper reads, with the scrape token or as somebody who may read Variables."""
    return Response(api.exposition(_scraper(), _now()), content_type=CONTENT_TYPE)


@blueprint.get("/api/check")
def check() -> Any:  # noqa: ANN401 - of Flask
    """The same for `flowauth-rotator check`."""
    return jsonify(api.state(_scraper(), _now()))


@blueprint.after_request
def secure(response: Response) -> Response:
    """Give each answer the headers of a page that trusts nobody, and nobody a session.

    Airflow keeps each session in its database, also that of a scraper, one a request.
    """
    if current_app.config["SESSION_COOKIE_NAME"] not in request.cookies:
        session.clear()
    response.headers.update(api.SECURITY_HEADERS)
    return response


@blueprint.errorhandler(Denied)
def denied(error: Denied) -> Any:  # noqa: ANN401 - of Flask
    """Say why not."""
    return jsonify(error.document), error.code


@blueprint.record_once
def _check_origin_itself(state: Any) -> None:  # noqa: ANN401 - of Flask
    """Clients of the API have no form to take Flask's own CSRF token from."""
    csrf = state.app.extensions.get("csrf")
    if csrf:  # not where a command of Airflow's, such as `users create`, makes an app
        csrf.exempt(blueprint)


def _scraper() -> Viewer | None:
    """Who reads what machines read; nobody if it is the scraper itself."""
    return None if api.is_scraper(request.headers.get("Authorization", "")) else _viewer()


def _viewer() -> Viewer:
    if not _is_known():
        raise Denied(401, "Sign in to Airflow.")
    return Viewer()


def _is_known() -> bool:
    """Whether there is a session, or what Airflow's own API takes instead, or all may see it."""
    if not get_auth_manager().is_logged_in():
        with suppress(Unauthenticated):
            check_authentication()  # signs in who presents credentials, and lets the public pass
    return get_auth_manager().is_logged_in() or Viewer().may_read()


def _now() -> datetime:
    return datetime.now(timezone.utc)
