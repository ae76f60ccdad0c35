"""The page and its API on Airflow 3, as a FastAPI app in its API server."""

# Not `from __future__ import annotations`: FastAPI reads the annotations of its routes.

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import (
    DagAccessEntity,
    DagDetails,
    VariableDetails,
)
from airflow.api_fastapi.core_api.security import GetUserDep, bearer_scheme, get_user
from airflow.api_fastapi.logging.decorators import action_logging
from airflow.models import DagModel, Variable
from fastapi import Body, Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
)
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from flowauth_rotator.monitoring.prometheus import CONTENT_TYPE
from flowauth_rotator.provider.compat import conf
from flowauth_rotator.provider.web import api
from flowauth_rotator.provider.web.api import ApiError

STATIC = Path(__file__).parent / "static"

app = FastAPI(title="FlowAPI tokens", docs_url=None, redoc_url=None, openapi_url=None)
app.mount("/static", StaticFiles(directory=STATIC))


class AsciiJSONResponse(JSONResponse):
    """JSON in ASCII, which also encodes the lone surrogates that a name may contain."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - JSON
        """Return the body."""
        return json.dumps(content).encode()


@dataclass
class Viewer:
    """The user who sends a request, as the auth manager knows them."""

    user: Any

    @property
    def name(self) -> str:
        """The name of the user in the audit log."""
        return str(self.user.get_name())

    def may_read(self, variable: str | None = None) -> bool:
        """Whether the user may read this Variable, or Variables in general."""
        details = None
        if variable is not None:
            details = VariableDetails(key=variable, team_name=_get_team(Variable, variable))
        return get_auth_manager().is_authorized_variable(
            method="GET", details=details, user=self.user
        )

    def may_read_dag(self, dag_id: str) -> bool:
        """Whether the user may read the DAG."""
        return get_auth_manager().is_authorized_dag(
            method="GET",
            details=DagDetails(id=dag_id, team_name=_get_team(DagModel, dag_id)),
            user=self.user,
        )

    def may_renew(self, dag_id: str) -> bool:
        """Whether the user may start runs of the DAG."""
        return get_auth_manager().is_authorized_dag(
            method="POST",
            access_entity=DagAccessEntity.RUN,
            details=DagDetails(id=dag_id, team_name=_get_team(DagModel, dag_id)),
            user=self.user,
        )


def reject_cross_site(request: Request) -> None:
    """Reject a request from another site."""
    api.reject_cross_site(request.headers.get)


@app.get("/")
async def show_page(request: Request) -> Response:
    """Return the page, or redirect to the sign-in."""
    try:
        await _get_user(request)
    except HTTPException:
        here = request.scope["root_path"] + "/"
        return RedirectResponse(f"../api/v2/auth/login?{urlencode({'next': here})}", 303)
    return FileResponse(STATIC / "index.html")


@app.get("/runbooks/{name}")
async def show_runbook(request: Request, name: str) -> Response:
    """Return the page of a runbook, or redirect to the sign-in."""
    try:
        await _get_user(request)
    except HTTPException:
        here = f"{request.scope['root_path']}/runbooks/{quote(name, safe='')}"
        return RedirectResponse(f"../../api/v2/auth/login?{urlencode({'next': here})}", 303)
    return HTMLResponse(api.get_runbook(name))


@app.get("/api/tokens")
def list_tokens(user: GetUserDep) -> JSONResponse:
    """Return the data of the page."""
    return AsciiJSONResponse(api.list_tokens(Viewer(user), _now()))


@app.post(
    "/api/tokens/{name:path}/renew",
    status_code=202,
    dependencies=[
        Depends(reject_cross_site),
        Depends(action_logging(event="flowauth_rotator.renew")),
    ],
)
def renew_token(
    user: GetUserDep,
    name: str,
    body: Annotated[Any, Body()] = None,  # noqa: ANN401 - JSON
) -> JSONResponse:
    """Start a renewal."""
    return AsciiJSONResponse(api.renew_token(Viewer(user), name, body, _now()), 202)


@app.get("/metrics")
async def show_metrics(request: Request) -> Response:
    """Return the metrics, to the scrape token or to a user who may read Variables."""
    text = await run_in_threadpool(api.render_metrics, await _get_viewer(request), _now())
    return Response(text, media_type=CONTENT_TYPE)


@app.get("/api/check")
async def show_check(request: Request) -> JSONResponse:
    """Return the snapshot that `flowauth-rotator check` reads, with the same access."""
    viewer = await _get_viewer(request)
    return AsciiJSONResponse(await run_in_threadpool(api.build_check_document, viewer, _now()))


@app.middleware("http")
async def add_security_headers(request: Request, call_next: Any) -> Response:  # noqa: ANN401
    """Add the security headers to each response."""
    response: Response = await call_next(request)
    response.headers.update(api.SECURITY_HEADERS)
    return response


@app.exception_handler(ApiError)
async def show_api_error(_request: Request, error: ApiError) -> JSONResponse:
    """Return the error as JSON."""
    return JSONResponse(error.document, error.code)


@app.exception_handler(HTTPException)
async def show_http_error(_request: Request, error: HTTPException) -> JSONResponse:
    """Return an error that Airflow raised, in the same form.

    Airflow responds with 403 to credentials that are not a JWT of its own. The routes of this app
    raise `ApiError` for a missing permission.
    """
    if error.status_code in (401, 403):
        return JSONResponse({"code": 401, "message": "Sign in to Airflow."}, 401)
    message = str(error.detail)
    return JSONResponse({"code": error.status_code, "message": message}, error.status_code)


@app.exception_handler(RequestValidationError)
async def show_invalid_body(_request: Request, _error: RequestValidationError) -> JSONResponse:
    """Return the error for a body that is not JSON."""
    return JSONResponse({"code": 400, "message": "The body is not a JSON object."}, 400)


async def _get_viewer(request: Request) -> Viewer | None:
    """Return the user who sends the request; None for the scraper."""
    if api.is_scraper(request.headers.get("Authorization", "")):
        return None
    return Viewer(await _get_user(request))


async def _get_user(request: Request) -> Any:  # noqa: ANN401 - depends on the auth manager
    return await get_user(request, None, await bearer_scheme(request))


def _get_team(model: Any, name: str) -> str | None:  # noqa: ANN401 - a class of Airflow's models
    """Return the team that owns an object, if Airflow serves several teams."""
    if not conf.getboolean("core", "multi_team", fallback=False):
        return None
    return model.get_team_name(name)  # type: ignore[no-any-return]


def _now() -> datetime:
    return datetime.now(timezone.utc)
