"""The page and its API on Airflow 2, as a Flask blueprint in its web server."""

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
from flowauth_rotator.provider.web.api import ApiError

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
    """The user who sends a request, as the auth manager knows them."""

    @property
    def name(self) -> str:
        """The name of the user in the audit log."""
        is_logged_in = get_auth_manager().is_logged_in()
        return str(get_auth_manager().get_user_name()) if is_logged_in else "anonymous"

    def may_read(self, variable: str | None = None) -> bool:
        """Whether the user may read this Variable, or Variables in general."""
        details = VariableDetails(key=variable) if variable is not None else None
        return bool(get_auth_manager().is_authorized_variable(method="GET", details=details))

    def may_read_dag(self, dag_id: str) -> bool:
        """Whether the user may read the DAG."""
        details = DagDetails(id=dag_id)
        return bool(get_auth_manager().is_authorized_dag(method="GET", details=details))

    def may_renew(self, dag_id: str) -> bool:
        """Whether the user may start runs of the DAG."""
        return bool(
            get_auth_manager().is_authorized_dag(
                method="POST",
                access_entity=DagAccessEntity.RUN,
                details=DagDetails(id=dag_id),
            )
        )


class TokensPage(BaseView):  # type: ignore[misc, unused-ignore]
    """The page inside Airflow's layout."""

    route_base = f"/{PAGE}"
    default_view = "show"

    @expose("/")  # type: ignore[untyped-decorator, unused-ignore]
    def show(self) -> Any:  # noqa: ANN401 - of Flask
        """Show the page in a frame below Airflow's navigation, or alone if frames are disabled."""
        if not get_auth_manager().is_logged_in():
            return redirect(get_auth_manager().get_url_login(next_url=request.url))
        if not conf.getboolean("webserver", "x_frame_enabled", fallback=True):
            return redirect(url_for("flowauth_rotator.show_page"))
        return self.render_template("flowauth_rotator/frame.html")


@blueprint.get("/")
def show_page() -> Any:  # noqa: ANN401 - of Flask
    """Return the page, or redirect to the sign-in."""
    if not _is_authenticated():
        return redirect(get_auth_manager().get_url_login(next_url=request.url))
    return blueprint.send_static_file("index.html")


@blueprint.get("/runbooks/<name>")
def show_runbook(name: str) -> Any:  # noqa: ANN401 - of Flask
    """Return the page of a runbook, or redirect to the sign-in."""
    if not _is_authenticated():
        return redirect(get_auth_manager().get_url_login(next_url=request.url))
    return api.get_runbook(name)


@blueprint.get("/api/tokens")
def list_tokens() -> Any:  # noqa: ANN401 - of Flask
    """Return the data of the page."""
    return jsonify(api.list_tokens(_get_user(), _now()))


@blueprint.post("/api/tokens/<path:name>/renew")
def renew_token(name: str) -> Any:  # noqa: ANN401 - of Flask
    """Start a renewal."""
    api.reject_cross_site(request.headers.get)
    viewer = _get_user()
    body = request.get_json(silent=True)
    if body is None and request.get_data() not in (b"", b"null"):
        raise ApiError(400, "The body is not a JSON object.")
    extra = json.dumps({"name": name, "body": body if isinstance(body, dict) else None})
    with create_session() as database:
        database.add(Log("flowauth_rotator.renew", owner=viewer.name, extra=extra))
    return jsonify(api.renew_token(viewer, name, body, _now())), 202


@blueprint.get("/metrics")
def show_metrics() -> Response:
    """Return the metrics, to the scrape token or to a user who may read Variables."""
    return Response(api.render_metrics(_get_viewer(), _now()), content_type=CONTENT_TYPE)


@blueprint.get("/api/check")
def show_check() -> Any:  # noqa: ANN401 - of Flask
    """Return the snapshot that `flowauth-rotator check` reads, with the same access."""
    return jsonify(api.build_check_document(_get_viewer(), _now()))


@blueprint.after_request
def add_security_headers(response: Response) -> Response:
    """Add the security headers to each response, and start no session.

    Airflow would store a session in its database for each request of a scraper.
    """
    if current_app.config["SESSION_COOKIE_NAME"] not in request.cookies:
        session.clear()
    response.headers.update(api.SECURITY_HEADERS)
    return response


@blueprint.errorhandler(ApiError)
def show_api_error(error: ApiError) -> Any:  # noqa: ANN401 - of Flask
    """Return the error as JSON."""
    return jsonify(error.document), error.code


@blueprint.record_once
def _exempt_from_csrf_token(state: Any) -> None:  # noqa: ANN401 - of Flask
    """Exempt the API, which rejects cross-site requests itself: its clients load no form."""
    csrf = state.app.extensions.get("csrf")
    if csrf:  # absent from the app of an Airflow command such as `users create`
        csrf.exempt(blueprint)


def _get_viewer() -> Viewer | None:
    """Return the user who sends the request; None for the scraper."""
    return None if api.is_scraper(request.headers.get("Authorization", "")) else _get_user()


def _get_user() -> Viewer:
    if not _is_authenticated():
        raise ApiError(401, "Sign in to Airflow.")
    return Viewer()


def _is_authenticated() -> bool:
    """Whether the user has signed in or sent credentials, or anonymous users may read Variables."""
    if not get_auth_manager().is_logged_in():
        with suppress(Unauthenticated):
            check_authentication()  # signs in the user of the credentials
    return get_auth_manager().is_logged_in() or Viewer().may_read()


def _now() -> datetime:
    return datetime.now(timezone.utc)
