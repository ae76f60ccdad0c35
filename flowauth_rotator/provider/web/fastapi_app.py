"""The page and its API on Airflow 3, whose web server is made of FastAPI apps."""

# Not `from __future__ import annotations`: FastAPI reads the annotations of its routes.

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

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
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from flowauth_rotator.monitoring.prometheus import CONTENT_TYPE
from flowauth_rotator.provider.compat import conf
from flowauth_rotator.provider.web import api
from flowauth_rotator.provider.web.api import Denied

STATIC = Path(__file__).parent / "static"

app = FastAPI(title="FlowAPI tokens", docs_url=None, redoc_url=None, openapi_url=None)
app.mount("/static", StaticFiles(directory=STATIC))


class Json(JSONResponse):
    """JSON in ASCII, which also holds the halves of characters that there may be in a name."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - JSON
        """The body."""
        return json.dumps(content).encode()


@dataclass
class Viewer:
    """Who asks, as the auth manager knows them."""

    user: Any

    @property
    def name(self) -> str:
        """What the audit log calls them."""
        return str(self.user.get_name())

    def may_read(self, variable: str | None = None) -> bool:
        """Whether they may read this Variable, or Variables at all."""
        details = None
        if variable is not None:
            details = VariableDetails(key=variable, team_name=_team(Variable, variable))
        return get_auth_manager().is_authorized_variable(
            method="GET", details=details, user=self.user
        )

    def may_renew(self, dag_id: str) -> bool:
        """Whether they may start runs of the DAG."""
        return get_auth_manager().is_authorized_dag(
            method="POST",
            access_entity=DagAccessEntity.RUN,
            details=DagDetails(id=dag_id, team_name=_team(DagModel, dag_id)),
            user=self.user,
        )


def same_site(request: Request) -> None:
    """Refuse what another site sends."""
    api.check_origin(request.headers.get)


@app.get("/")
async def page(request: Request) -> Response:
    """The page, or the way to sign in."""
    try:
        await _user(request)
    except HTTPException:
        here = request.scope["root_path"] + "/"
        return RedirectResponse(f"../api/v2/auth/login?{urlencode({'next': here})}", 303)
    return FileResponse(STATIC / "index.html")


@app.get("/api/tokens")
def tokens(user: GetUserDep) -> JSONResponse:
    """All that the page shows."""
    return Json(api.tokens(Viewer(user), _now()))


@app.post(
    "/api/tokens/{called:path}/renew",
    status_code=202,
    dependencies=[Depends(same_site), Depends(action_logging(event="flowauth_rotator.renew"))],
)
def renew(
    user: GetUserDep,
    called: str,
    body: Annotated[Any, Body()] = None,  # noqa: ANN401 - JSON
) -> JSONResponse:
    """Start a renewal."""
    return Json(api.renew(Viewer(user), called, body, _now()), 202)


@app.get("/metrics")
async def metrics(request: Request) -> Response:
    """What a scraper reads, with the scrape token or as somebody who may read Variables."""
    text = await run_in_threadpool(api.exposition, await _scraper(request), _now())
    return Response(text, media_type=CONTENT_TYPE)


@app.get("/api/check")
async def check(request: Request) -> JSONResponse:
    """The same for `flowauth-rotator check`."""
    return Json(await run_in_threadpool(api.state, await _scraper(request), _now()))


@app.middleware("http")
async def secure(request: Request, call_next: Any) -> Response:  # noqa: ANN401 - Starlette's
    """Give each answer the headers of a page that trusts nobody."""
    response: Response = await call_next(request)
    response.headers.update(api.SECURITY_HEADERS)
    return response


@app.exception_handler(Denied)
async def denied(_request: Request, error: Denied) -> JSONResponse:
    """Say why not."""
    return JSONResponse(error.document, error.code)


@app.exception_handler(HTTPException)
async def refused(_request: Request, error: HTTPException) -> JSONResponse:
    """What Airflow refuses, in the same form."""
    message = "Sign in to Airflow." if error.status_code == 401 else str(error.detail)
    return JSONResponse({"code": error.status_code, "message": message}, error.status_code)


@app.exception_handler(RequestValidationError)
async def malformed(_request: Request, _error: RequestValidationError) -> JSONResponse:
    """A body that is no JSON."""
    return JSONResponse({"code": 400, "message": "The body is no JSON object."}, 400)


async def _scraper(request: Request) -> Viewer | None:
    """Who reads what machines read; nobody if it is the scraper itself."""
    if api.is_scraper(request.headers.get("Authorization", "")):
        return None
    return Viewer(await _user(request))


async def _user(request: Request) -> Any:  # noqa: ANN401 - of whatever auth manager
    return await get_user(request, None, await bearer_scheme(request))


def _team(model: Any, name: str) -> str | None:  # noqa: ANN401 - a class of Airflow's models
    """Whose it is, where Airflow serves several teams."""
    if not conf.getboolean("core", "multi_team", fallback=False):
        return None
    return model.get_team_name(name)  # type: ignore[no-any-return]


def _now() -> datetime:
    return datetime.now(timezone.utc)
